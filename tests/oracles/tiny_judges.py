"""Judges of a few thousand parameters, with tokenizers that have traps of their own."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

_WORDS = """
<pad> <bos> <|im_end|> [CLS] [SEP] <|im_start|> system user assistant answer Answer 1 2 :
a b c d e f good bad long short be kind hello
"""
WORDS = _WORDS.split()

QWEN_LIKE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|> system be kind <|im_end|> {% endif %}"
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)
"""A default system prompt, and the end token closes every turn, the prompt's own included."""


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """``"plain"`` (end token only), ``"chat"`` (Qwen-like) or ``"pair"`` (BERT-like)."""
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="hello"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<|im_end|>"}
    if kind == "pair":
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 3), ("[SEP]", 4)],
        )
        names = {"pad_token": "<pad>", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    elif kind == "chat":
        raw.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    if kind == "pair":
        made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    if kind == "chat":
        made.chat_template = QWEN_LIKE
    return made


def decoder(num_labels=1, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=num_labels,
        pad_token_id=None,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _loud(LlamaForSequenceClassification(config), dtype)


def encoder(num_labels=1, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=num_labels,
        pad_token_id=0,
    )
    return _loud(BertForSequenceClassification(config), dtype)


def _loud(model, dtype):
    """Random weights large enough that answers differ visibly."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return model.to(dtype).eval()


def count_rows(model) -> list[int]:
    """Batch sizes of the forward passes from now on."""
    sizes: list[int] = []
    inner = model.forward

    def forward(*args, **kwargs):
        sizes.append(len(kwargs["input_ids"]))
        return inner(*args, **kwargs)

    model.forward = forward
    return sizes


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, dtype=float)))
