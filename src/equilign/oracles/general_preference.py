r"""General preference models: a skew-symmetric score of two embeddings.

Zhang et al. 2024 (arXiv:2410.02197). Each answer has an embedding ``v`` in ``R^{2d}``, and

    P(a beats b) = sigmoid(v_a^T R v_b / scale),    R = block-diag([[0, -1], [1, 0]], ...).

Antisymmetric by construction, but not transitive: three embeddings at 120 degrees are a cycle.
With ``v = (1, r)`` it is a reward model, so Bradley-Terry is a special case.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilign.errors import ModelError
from equilign.oracles.judge_models import (
    JudgeModel,
    PairwiseModel,
    RewardModel,
    flat_groups,
    iter_groups,
)
from equilign.oracles.judge_text import CONFIG_NAME, Prompt, read_judge_config, win_probability


def skew_score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``v_a^T R v_b``, the sum over blocks of ``a_2 b_1 - a_1 b_2``; broadcasts.

    Exchanging the arguments negates the result exactly.
    """
    a, b = np.asarray(first), np.asarray(second)
    blocks = a[..., 1::2] * b[..., 0::2] - a[..., 0::2] * b[..., 1::2]
    return np.asarray(blocks.sum(axis=-1))


class GeneralPreferenceModel(JudgeModel):
    """A judge that can be intransitive at the price of a reward model.

    One forward pass per distinct prompt and answer, so K per group. ``num_labels = 2 d``.
    Arguments as of `equilign.oracles.judge_models.JudgeModel`.
    """

    kind = "general"

    def _check_head(self, num_labels: int) -> None:
        if num_labels < 2 or num_labels % 2:
            raise ModelError(
                "a general preference model has an even number of outputs (pairs of coordinates), "
                f"this classifier has num_labels = {num_labels}"
            )

    def embed(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Embedding of each answer, shape ``(n, 2 d)``, float64."""
        return self.outputs(prompts, [(answer,) for answer in answers])

    def margins(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """``v_a^T R v_b / scale``."""
        v = self.embed([*prompts, *prompts], [*a, *b])
        return skew_score(v[: len(a)], v[len(a) :]) / self.config.scale

    def compare_groups(
        self, prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """``(K, K)`` win probabilities of each prompt's answers, from K forward passes."""
        embedded = iter_groups(groups, self.embed(*flat_groups(prompts, groups)))
        return [
            win_probability(skew_score(v[:, None], v[None, :]) / self.config.scale)
            for v in embedded
        ]


JUDGES: dict[str, type[JudgeModel]] = {
    judge.kind: judge for judge in (RewardModel, PairwiseModel, GeneralPreferenceModel)
}
"""Kind -> class."""


def load_judge(
    folder: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | None = None,
    batch_size: int = 32,
    **options: Any,  # noqa: ANN401
) -> JudgeModel:
    """The judge in a folder that `equilign fit-oracle` wrote, of whichever kind.

    Args:
        folder: holds the checkpoint and ``equilign_judge.json``; the run directory around it
            (with ``judge/`` inside) does too.
        dtype: of the weights.
        device: where to run; None is the first GPU, or the CPU without one.
        batch_size: texts per forward pass.
        options: fields of `JudgeConfig` that replace those of the file.

    Raises:
        ModelError: there is no such folder, or no ``equilign_judge.json`` in it.
    """
    path = judge_folder(Path(folder).expanduser())
    config = read_judge_config(path)
    if config is None:
        raise ModelError(
            f"{path} holds no {CONFIG_NAME}, so the kind of judge is unknown. Give the folder "
            "that `equilign fit-oracle` wrote, or say the kind: RewardModel.from_pretrained(...), "
            "PairwiseModel, GeneralPreferenceModel."
        )
    return JUDGES[config.kind].from_pretrained(
        path, dtype=dtype, device=device, batch_size=batch_size, **options
    )


def judge_folder(path: Path) -> Path:
    """The folder with the checkpoint: ``path`` itself, or ``judge/`` in a run directory."""
    inner = path / "judge"
    outer = (path / CONFIG_NAME).is_file() or not (inner / CONFIG_NAME).is_file()
    return path if outer else inner
