"""What a Follower is shown: the Leader's answer in its conversation, and the request to improve it.

Stackelberg Learning from Human Feedback (Pasztor et al. 2025, arXiv:2512.16626).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter

from equilign.errors import ConfigError, ModelError
from equilign.files import write_json
from equilign.rollout.types import Group, Message, Prompt, Sampler

INSTRUCTION = (
    "Improve your answer. Write the better answer only, as if it were your first one, without "
    "mentioning this request."
)
FILE_NAME = "follower_prompt.json"
"""Beside a Follower's weights: how it was asked when it was trained."""
_FIELDS = {"prompt", "answer", "instruction"}


@dataclass(frozen=True)
class FollowerPrompt:
    """How an answer becomes the prompt of whoever improves it.

    Attributes:
        instruction: the request that follows the answer.
        plain: for prompts of plain text: a text with ``{prompt}``, ``{answer}`` and
            ``{instruction}`` in it. Chat messages need none: the answer becomes the assistant's
            message and the instruction the user's next one.

    Raises:
        ConfigError: ``plain`` has another field, or does not show the answer.
    """

    instruction: str = INSTRUCTION
    plain: str = "{prompt}{answer}\n\n{instruction}\n\n"

    def __post_init__(self) -> None:
        try:
            named = {field for _, field, _, _ in Formatter().parse(self.plain) if field is not None}
        except ValueError as error:
            raise ConfigError(f"follower template {self.plain!r}: {error}") from error
        if "answer" not in named or not named <= _FIELDS:
            raise ConfigError(
                f"follower template {self.plain!r} names {sorted(named) or 'nothing'}; it must "
                "show {answer}, and may show {prompt} and {instruction}"
            )

    def of(self, prompt: Prompt, answer: str) -> Prompt:
        """The Follower's prompt where ``answer`` was given to ``prompt``."""
        if isinstance(prompt, str):
            return self.plain.format(prompt=prompt, answer=answer, instruction=self.instruction)
        reply: list[Message] = [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": self.instruction},
        ]
        return [*prompt, *reply]

    def save(self, folder: Path) -> None:
        """Write `FILE_NAME` into a Follower's folder."""
        write_json(folder / FILE_NAME, asdict(self))

    @staticmethod
    def load(folder: Path) -> "FollowerPrompt | None":
        """How the Follower of ``folder`` was asked when it was trained; None where nobody says.

        Raises:
            ModelError: the file does not say it.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            return FollowerPrompt(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} is not a follower prompt: {error}") from error


def replies(
    sampler: Sampler,
    form: FollowerPrompt,
    led: Sequence[Group],
    num_samples: int,
    seed: int,
) -> list[list[Group]]:
    """``num_samples`` improvements of every answer of every group.

    Args:
        sampler: who improves.
        form: how it is asked.
        led: prompts with the answers to improve.
        num_samples: improvements of each answer.
        seed: the same improvements for the same seed and weights.

    Returns:
        For each group of ``led`` one group per answer, whose prompt is the Follower's.
    """
    asked = [form.of(group.prompt, c.text) for group in led for c in group.completions]
    found = iter(sampler.sample(asked, num_samples, seed))
    return [[next(found) for _ in group.completions] for group in led]
