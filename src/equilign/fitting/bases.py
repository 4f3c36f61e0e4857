"""What a judge starts from: a small encoder made here, or a model with a new head."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from equilign.errors import ConfigError, ModelError
from equilign.fitting.config import SCRATCH, FitConfig
from equilign.formats import PreferencePair
from equilign.models import SHIPPED, load_tokenizer, shipped_model_path
from equilign.oracles.judge_models import padding_id
from equilign.oracles.judge_text import as_text

_PAD, _CLS, _SEP = "[PAD]", "[CLS]", "[SEP]"
_SPECIAL = (_PAD, _CLS, _SEP)


@dataclass(frozen=True)
class ScratchSize:
    """Of the encoder that is trained from nothing: made for hundreds to thousands of pairs.

    Attributes:
        vocabulary: byte-pair tokens at most; every byte is one, so that any text can be read.
        width: of the hidden states.
        layers: of attention; one is what so few pairs can fill. A pairwise judge has one more.
        dropout: everywhere.
        positions: tokens that it can read.
    """

    vocabulary: int = 2000
    width: int = 64
    layers: int = 1
    dropout: float = 0.3
    positions: int = 2048


def scratch_tokenizer(
    texts: Iterable[str], size: ScratchSize, *, types: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer fitted to texts, with an input of two sequences.

    Args:
        texts: what it is fitted to.
        size: how many tokens.
        types: whether it says which sequence a token is of.
    """
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        min_frequency=3,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{_CLS} $A {_SEP}",
        pair=f"{_CLS} $A {_SEP} $B:1 {_SEP}:1",
        special_tokens=[(_CLS, _SPECIAL.index(_CLS)), (_SEP, _SPECIAL.index(_SEP))],
    )
    names = {"pad_token": _PAD, "cls_token": _CLS, "sep_token": _SEP}
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **names)  # type: ignore[no-untyped-call]
    made.model_max_length = size.positions
    if types:
        made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def scratch_model(kind: str, outputs: int, vocabulary: int, size: ScratchSize) -> PreTrainedModel:
    """A small encoder for a judge of ``kind``; weights random by torch's seed.

    Of single answers: ModernBERT, averaging over tokens. Before attention has learned anything, it
    is a linear function of which word pieces an answer has: what a few hundred pairs can teach.

    Of two answers: BERT, whose token types say which answer a word stands in. It needs one layer
    to combine word and place, and another one to collect.
    """
    return (_two_answers if kind == "pairwise" else _one_answer)(outputs, vocabulary, size)


def _one_answer(outputs: int, vocabulary: int, size: ScratchSize) -> PreTrainedModel:
    config = ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        max_position_embeddings=size.positions,
        classifier_pooling="mean",
        embedding_dropout=size.dropout,
        attention_dropout=size.dropout,
        mlp_dropout=size.dropout,
        classifier_dropout=size.dropout,
        pad_token_id=_SPECIAL.index(_PAD),
        bos_token_id=_SPECIAL.index(_CLS),
        cls_token_id=_SPECIAL.index(_CLS),
        eos_token_id=_SPECIAL.index(_SEP),
        sep_token_id=_SPECIAL.index(_SEP),
    )
    config.num_labels = outputs
    return ModernBertForSequenceClassification(config)


def _two_answers(outputs: int, vocabulary: int, size: ScratchSize) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.layers + 1,
        num_attention_heads=4,
        max_position_embeddings=size.positions,
        hidden_dropout_prob=size.dropout,
        attention_probs_dropout_prob=size.dropout,
        pad_token_id=_SPECIAL.index(_PAD),
    )
    config.num_labels = outputs
    return BertForSequenceClassification(config)


@dataclass(frozen=True)
class Base:
    """What a judge starts from.

    Attributes:
        model: a sequence classifier.
        tokenizer: its own.
        new_head: whether its last layer is random.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_head: bool


def make_base(
    config: FitConfig, kind: str, train: Iterable[PreferencePair], size: ScratchSize
) -> Base:
    """Model and tokenizer to start a judge of ``kind`` from; a new head is random by the seed.

    Args:
        config: of the fit.
        kind: of the judge, which need not be the configuration's.
        train: pairs that a new tokenizer is fitted to.
        size: of a model from scratch.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    torch.manual_seed(config.seed)
    outputs = config.outputs(kind)
    if config.base == SCRATCH:
        texts = (t for p in train for t in (as_text(p.prompt), p.chosen, p.rejected))
        tokenizer: PreTrainedTokenizerBase = scratch_tokenizer(
            texts, size, types=kind == "pairwise"
        )
        return Base(scratch_model(kind, outputs, len(tokenizer), size), tokenizer, True)
    tokenizer = load_tokenizer(config.base, allow_download=config.allow_download)
    model, new_head = _classifier(config, outputs)
    pad = padding_id(tokenizer)
    model.config.pad_token_id = pad
    model.config.get_text_config().pad_token_id = pad
    if config.gradient_checkpointing:
        options = {"use_reentrant": False}
        model.gradient_checkpointing_enable(options)  # type: ignore[no-untyped-call]
    return Base(model, tokenizer, new_head)


def _classifier(config: FitConfig, outputs: int) -> tuple[PreTrainedModel, bool]:
    """The base as a sequence classifier, and whether its head had to be made."""
    path = Path(config.base).expanduser()
    source = str(shipped_model_path()) if config.base == SHIPPED else config.base
    source = str(path) if path.is_dir() else source
    # Frozen weights may be rounded; weights that are trained may not, or small steps vanish.
    half = config.lora and config.dtype == "bfloat16"
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=outputs,
            dtype=torch.bfloat16 if half else torch.float32,
            ignore_mismatched_sizes=True,
            local_files_only=not config.allow_download,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"cannot make a sequence classifier from {source}: {error}") from error
    return model, bool(info["missing_keys"] or info["mismatched_keys"])


def with_adapter(model: PreTrainedModel, config: FitConfig) -> PreTrainedModel:
    """The model with a LoRA adapter on every linear layer, and its head trained in full.

    Raises:
        ConfigError: the model has no layers that an adapter can be put on.
    """
    from peft import LoraConfig, get_peft_model

    options = LoraConfig(
        task_type="SEQ_CLS",
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
    )
    try:
        adapted = get_peft_model(model, options)
    except ValueError as error:
        raise ConfigError(f"LoRA cannot be added to {config.base}: {error}") from error
    return adapted  # type: ignore[return-value]


def last_layer(model: PreTrainedModel, outputs: int) -> torch.nn.Linear:
    """The layer that gives the judge's numbers.

    Raises:
        ModelError: there is none that can be recognised.
    """
    found = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == outputs
    ]
    if not found:
        raise ModelError(f"the base model has no linear layer with {outputs} outputs at its end")
    return found[-1]
