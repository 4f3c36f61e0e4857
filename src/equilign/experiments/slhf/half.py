"""A second model, of half the size: what a Follower has never seen the like of.

Half of the shipped model's layers (the first and the last), healed by distillation: its next-token
distributions are fitted to the shipped model's, on the shipped model's own answers to the training
prompts. It speaks the same language worse. Nothing else of the run has a part in it.
"""

import copy
import shutil
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, set_seed

from equilign.experiments.held_out import Tell, quiet
from equilign.experiments.slhf.pieces import Setting
from equilign.files import write_json
from equilign.models import SHIPPED, load_model, load_tokenizer
from equilign.rollout import pad_token
from equilign.runs import peak_memory_mb
from equilign.trainers.rounds import derive_seed

HALF = "half"
LEARNING_RATE = 1e-3
BATCH = 16


def halved(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with half of the layers, evenly spaced, the first and the last among them."""
    small = copy.deepcopy(model)
    layers = small.model.layers
    kept = np.linspace(0, len(layers) - 1, max(1, len(layers) // 2)).round().astype(int).tolist()
    small.model.layers = nn.ModuleList(layers[i] for i in kept)
    for number, layer in enumerate(small.model.layers):
        layer.self_attn.layer_idx = number
    small.config.num_hidden_layers = len(kept)
    return small


def weights(model: nn.Module) -> int:
    """How many numbers a model is made of."""
    return sum(p.numel() for p in model.parameters())


def make_half(setting: Setting, seed: int, *, tell: Tell) -> None:
    """Distil, keep the weights, and answer the held-out prompts for one seed."""
    path = setting.piece_file(HALF, seed)
    if path.exists():
        return
    quiet()
    began = time.perf_counter()
    set_seed(seed)
    teacher, tokenizer = load_model(SHIPPED), load_tokenizer(SHIPPED)
    student = halved(teacher)
    sampler = setting.sampler(teacher, tokenizer)
    prompts = setting.train[: setting.scale.half_prompts]
    groups = sampler.sample(prompts, 1, derive_seed(seed, HALF))
    pairs = [(list(g.prompt_ids), list(c.ids)) for g in groups for c in g.completions]
    optimiser = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    for epoch in range(setting.scale.half_epochs):
        order = torch.randperm(len(pairs)).tolist()
        for start in range(0, len(order), BATCH):
            batch = [pairs[i] for i in order[start : start + BATCH]]
            loss = divergence(teacher, student, batch, pad_token(tokenizer))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        tell(epoch + 1, setting.scale.half_epochs)
    folder = setting.model_folder(HALF, seed)
    partial = folder.with_name(f"{folder.name}.partial")
    student.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    setting.sample_answers(HALF, seed, student, tokenizer, setting.scale.chains)
    write_json(
        path,
        {
            "weights": weights(student),
            "weights_of_start": weights(teacher),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(),
        },
    )


def divergence(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    pairs: list[tuple[list[int], list[int]]],
    pad: int,
) -> Tensor:
    """Mean KL(teacher || student) per token of the answers, nats."""
    ids, mask, own = _padded(pairs, pad)
    with torch.no_grad():
        wanted = teacher(ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    found = student(ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    each = functional.kl_div(found, wanted, log_target=True, reduction="none").sum(-1)
    here = own[:, 1:]
    return (each * here).sum() / here.sum()


def _padded(pairs: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, which are real, and which belong to an answer; padded on the right."""
    width = max(len(p) + len(c) for p, c in pairs)
    shape = (len(pairs), width)
    ids = torch.full(shape, pad)
    mask, own = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    for row, (prompt, answer) in enumerate(pairs):
        total = len(prompt) + len(answer)
        ids[row, :total] = torch.tensor(prompt + answer)
        mask[row, :total] = 1
        own[row, len(prompt) : total] = 1.0
    return ids, mask, own
