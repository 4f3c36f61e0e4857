"""Shared set-up: tests are offline and single-seeded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

# Tiny models gain nothing from threads, and bit-identical runs need a fixed number of them.
torch.set_num_threads(1)
