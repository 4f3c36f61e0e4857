"""Judges that are transformers: reward models and pairwise cross-encoders.

Both are ordinary ``AutoModelForSequenceClassification`` checkpoints. Every judge answers
``margins``, the logits of its verdicts, beside ``compare``; both are exactly antisymmetric:
``margins(a, b) == -margins(b, a)``, bit for bit, for calls on the same pairs.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from equilign.errors import ModelError
from equilign.models import SHIPPED, load_tokenizer, shipped_model_path
from equilign.oracles.judge_text import (
    Encoded,
    JudgeConfig,
    JudgeText,
    Prompt,
    prompt_key,
    read_judge_config,
    win_probability,
)

_LONGEST = 4096
"""Tokens read at most where neither model nor tokenizer sets a limit."""


class JudgeModel:
    """What all three kinds share: loading, rendering, batches, one forward pass per text.

    Args:
        model: a sequence classifier; moved to ``device`` and put into evaluation mode.
        tokenizer: its own.
        config: see `equilign.oracles.judge_text.JudgeConfig`; None is the default of the class.
        batch_size: texts per forward pass; similar lengths go together.
        device: where to run; None is the first GPU, or the CPU without one.

    Attributes:
        text: the rendering, which counts what was cut.
        num_scored: texts run through the model so far.

    Raises:
        ModelError: the head has the wrong size, the tokenizer no padding or end token, or the
            configuration is of another kind of judge.
    """

    kind = ""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: JudgeConfig | None = None,
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
    ) -> None:
        self.config = JudgeConfig(self.kind) if config is None else config
        if self.config.kind != self.kind:
            raise ModelError(
                f"this is a judge of kind {self.config.kind!r}, and {type(self).__name__} is for "
                f"{self.kind!r}; load_judge picks the class by itself"
            )
        if batch_size < 1:
            raise ModelError(f"batch_size must be at least 1; got {batch_size}")
        self._check_head(int(model.config.num_labels or 0))
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.pad_id = padding_id(tokenizer)
        # The classifier looks for the last token that is not padding, by the id in its config.
        model.config.pad_token_id = self.pad_id
        model.config.get_text_config().pad_token_id = self.pad_id
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(place).eval()  # type: ignore[arg-type]
        limit = length_limit(model, tokenizer, self.config.max_length)
        self.text = JudgeText(tokenizer, self.config, limit)
        self.num_scored = 0

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: str | None = None,
        batch_size: int = 32,
        allow_download: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> Self:
        """A judge from a folder, or by its name on a hub.

        Args:
            name_or_path: a checkpoint of ``AutoModelForSequenceClassification`` with its
                tokenizer; ``equilign_judge.json`` beside it is read where there is one.
            dtype: of the weights: ``torch.bfloat16`` or its name halves the memory on a GPU.
            device: where to run; None is the first GPU, or the CPU without one.
            batch_size: texts per forward pass.
            allow_download: whether a name may be fetched from the hub.
            options: fields of `JudgeConfig` that replace those of the file.

        Raises:
            ModelError: not a folder with a classifier whose head is trained and fits this kind
                of judge; says why.
        """
        config = judge_config(name_or_path, cls.kind, options)
        tokenizer = load_tokenizer(name_or_path, allow_download=allow_download)
        model = load_classifier(name_or_path, dtype, allow_download=allow_download)
        return cls(model, tokenizer, config, batch_size=batch_size, device=device)

    def _check_head(self, num_labels: int) -> None:
        raise NotImplementedError

    def margins(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Logit of Pr(a beats b), shape ``(n,)``, float64."""
        raise NotImplementedError

    def compare(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`; exactly antisymmetric."""
        return win_probability(self.margins(prompts, a, b))

    @torch.inference_mode()
    def outputs(self, prompts: Sequence[Prompt], answers: Sequence[tuple[str, ...]]) -> np.ndarray:
        """The head's raw outputs, float64, shape ``(n, num_labels)``; equal texts run once.

        Raises:
            ModelError: an output is not finite; says for which answer.
        """
        keys = [(prompt_key(p), a) for p, a in zip(prompts, answers, strict=True)]
        first = {key: i for i, key in reversed([*enumerate(keys)])}
        rows = list(first.values())
        encoded = self.text.encode([prompts[i] for i in rows], [answers[i] for i in rows])
        # The order is one of the texts alone, so that the same texts always meet in one batch.
        order = sorted(
            range(len(rows)), key=lambda i: (len(encoded[i]["input_ids"]), *encoded[i]["input_ids"])
        )
        values = np.zeros((len(rows), int(self.model.config.num_labels or 0)))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            values[chosen] = self._forward([encoded[i] for i in chosen])
        self.num_scored += len(rows)
        _check_finite(values, [answers[i] for i in rows])
        place = {keys[i]: place for place, i in enumerate(rows)}
        return np.asarray(values[[place[key] for key in keys]])

    def _forward(self, batch: Sequence[Encoded]) -> np.ndarray:
        inputs = padded(batch, self.pad_id)
        moved = {name: value.to(self.model.device) for name, value in inputs.items()}
        return np.asarray(self.model(**moved).logits.double().cpu())


class RewardModel(JudgeModel):
    """A scalar reward: ``P = sigmoid(scale * (r_a - r_b))`` (Bradley & Terry 1952).

    One forward pass per distinct prompt and answer, so K per group. It cannot represent a cycle.
    Arguments as of `JudgeModel`.
    """

    kind = "reward"

    def _check_head(self, num_labels: int) -> None:
        if num_labels != 1:
            raise ModelError(
                f"a reward model has one output, this classifier has num_labels = {num_labels}; "
                "it may be a pairwise (2) or general (2d) judge, see equilign_judge.json"
            )

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Reward of each answer, shape ``(n,)``, float64, in the model's own units."""
        return np.asarray(self.outputs(prompts, [(answer,) for answer in answers])[:, 0])

    def margins(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """``scale * (r_a - r_b)``."""
        scores = self.score([*prompts, *prompts], [*a, *b])
        return np.asarray(self.config.scale * (scores[: len(a)] - scores[len(a) :]))

    def compare_groups(
        self, prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """``(K, K)`` win probabilities of each prompt's answers, from K forward passes."""
        scores = iter_groups(groups, self.score(*flat_groups(prompts, groups)))
        scale = self.config.scale
        return [win_probability(scale * (s[:, None] - s[None, :])) for s in scores]


class PairwiseModel(JudgeModel):
    r"""A cross-encoder that reads both answers: ``P = sigmoid(scale * (s_ab - s_ba) / 2)``.

    ``s_ab`` is the logit that the first answer is better, as PairRM (Jiang et al. 2023,
    arXiv:2306.02561) is trained. Both orders are always asked, hence no position bias is left.
    Their difference carries the logit *twice*: SPPO's released scripts leave out the half.

    A head with two outputs (label 0: the first answer is better) is read as
    ``s_ab = z_0 - z_1``, the logit of its softmax. Two forward passes per unordered pair.
    Arguments as of `JudgeModel`.
    """

    kind = "pairwise"

    def _check_head(self, num_labels: int) -> None:
        if num_labels not in (1, 2):
            raise ModelError(
                "a pairwise judge has one output (logit that the first answer is better) or two "
                f"(first, second), this classifier has num_labels = {num_labels}"
            )

    def logits(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """``s_ab`` of one order only, shape ``(n,)``: shows position bias, is no verdict."""
        values = self.outputs(prompts, [*zip(a, b, strict=True)])
        return values[:, 0] if values.shape[1] == 1 else values[:, 0] - values[:, 1]

    def margins(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """``scale * (s_ab - s_ba) / 2``; 0 for equal answers."""
        both = self.logits([*prompts, *prompts], [*a, *b], [*b, *a])
        return np.asarray(self.config.scale / 2.0 * (both[: len(a)] - both[len(a) :]))

    def compare_groups(
        self, prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """``(K, K)`` win probabilities of each prompt's answers; every ordered pair once."""
        pairs = [
            (g, left, right)
            for g, answers in enumerate(groups)
            for left in sorted(set(answers))
            for right in sorted(set(answers))
            if left < right
        ]
        values = self.compare(
            [prompts[g] for g, *_ in pairs], [a for _, a, _ in pairs], [b for *_, b in pairs]
        )
        won: dict[tuple[int, str, str], float] = dict(zip(pairs, values.tolist(), strict=True))

        def entry(g: int, a: str, b: str) -> float:
            if a == b:
                return 0.5
            return won[g, a, b] if a < b else 1.0 - won[g, b, a]

        return [
            np.array([[entry(g, a, b) for b in answers] for a in answers])
            for g, answers in enumerate(groups)
        ]


def judge_config(name_or_path: str | Path, kind: str, options: dict[str, Any]) -> JudgeConfig:
    """The configuration beside a checkpoint with ``options`` in place of what it says.

    Raises:
        ModelError: an option that does not exist.
    """
    held = read_judge_config(Path(name_or_path).expanduser())
    values = {} if held is None else vars(held)
    try:
        return JudgeConfig(**{"kind": kind, **values, **options})
    except TypeError as error:
        raise ModelError(f"{error}; options of a judge are fields of JudgeConfig") from error


def load_classifier(
    name_or_path: str | Path,
    dtype: torch.dtype | str = torch.float32,
    *,
    allow_download: bool = False,
) -> PreTrainedModel:
    """A sequence classifier with trained weights throughout.

    Raises:
        ModelError: transformers cannot read it, or its head (or another part) is missing.
    """
    source = str(shipped_model_path()) if str(name_or_path) == SHIPPED else name_or_path
    path = Path(source).expanduser()
    source = str(path) if path.is_dir() else str(source)
    model: PreTrainedModel
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=dtype, local_files_only=not allow_download, output_loading_info=True
        )
    except Exception as error:
        raise ModelError(f"cannot load a sequence classifier from {source}: {error}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(
            f"{source} is no trained judge: its checkpoint has no weights for {missing}. "
            "A language model becomes a judge by `equilign fit-oracle`."
        )
    return model


def padded(batch: Sequence[Encoded], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids``, ``attention_mask`` and, where there are any, token types."""
    longest = max(len(row["input_ids"]) for row in batch)

    def column(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([[*row[name], *[fill] * (longest - len(row[name]))] for row in batch])

    mask = torch.tensor(
        [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch]
    )
    inputs = {"input_ids": column("input_ids", pad_id), "attention_mask": mask}
    if "token_type_ids" in batch[0]:
        inputs["token_type_ids"] = column("token_type_ids", 0)
    return inputs


def flat_groups(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
) -> tuple[list[Prompt], list[str]]:
    """Prompts repeated, and answers, one after another."""
    repeated = [p for p, answers in zip(prompts, groups, strict=True) for _ in answers]
    return repeated, [a for answers in groups for a in answers]


def iter_groups(groups: Sequence[Sequence[str]], values: np.ndarray) -> Iterable[np.ndarray]:
    """Inverse of `flat_groups` for values, one row per answer."""
    ends = np.cumsum([len(answers) for answers in groups])
    return np.split(values, ends[:-1]) if len(groups) else []


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token; without one, a token that does not stand last.

    Raises:
        ModelError: the tokenizer has no special token at all.
    """
    for token in (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError("the judge's tokenizer has no padding, start or end token to pad with")


def length_limit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wanted: int | None
) -> int:
    """Tokens that a judge reads at most: ``wanted``, or what model and tokenizer take.

    Raises:
        ModelError: more is wanted than the model has positions.
    """
    config = model.config.get_text_config().to_dict()
    positions = config.get("max_position_embeddings")
    own = [n for n in (positions, tokenizer.model_max_length) if n is not None and n > 0]
    if wanted is None:
        return int(min([*own, _LONGEST]))
    if positions is not None and wanted > positions:
        raise ModelError(f"max_length = {wanted}, but the judge reads {positions} tokens at most")
    return wanted


def _check_finite(values: np.ndarray, answers: Sequence[tuple[str, ...]]) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        raise ModelError(
            f"the judge's output is {values[i].tolist()} for {[a[:60] for a in answers[i]]}; "
            "its weights are broken, or they overflow in this dtype (try float32)"
        )
