"""Shared set-up: tests are offline, single-threaded, and build their models from a config."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import signal
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM

# Shells start background jobs with SIGINT ignored, and so would everything that is started here.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny models gain nothing from threads, and bit-identical runs need a fixed number of them.
torch.set_num_threads(1)

# The same examples every time, and no verdict on how long one takes.
settings.register_profile("equilign", derandomize=True, deadline=None)
settings.load_profile("equilign")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory) -> Path:
    """Folder of a random chat model with the shipped tokenizer: 140 thousand parameters."""
    from equilign.models import load_tokenizer

    folder = tmp_path_factory.mktemp("chat_model")
    tokenizer = load_tokenizer("shipped")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory) -> Path:
    """Forty-eight restaurant prompts."""
    from equilign.tasks.prompts import restaurant_prompts

    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = restaurant_prompts("align")[:48]
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in rows))
    return path


@pytest.fixture(scope="module")
def chromium():
    """Debian's browser. Without it the tests that need it fail on purpose."""
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()
