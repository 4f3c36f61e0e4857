"""How a judge model reads a prompt and its answers: rendered, tokenised, cut where too long.

A judge has its own tokenizer and chat template; what reaches it is plain text or chat messages,
never token ids of the policy. Nothing is cut without being counted: a text longer than the judge
can read loses the *beginning of its prompt*; only when no prompt is left does the longer answer
lose its end.
"""

import json
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equilign.errors import ModelError
from equilign.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
Prompt = str | Sequence[Message]

CONFIG_NAME = "equilign_judge.json"
KINDS = ("reward", "pairwise", "general")
FORMATS = ("chat", "pair", "plain")
ANSWER_TEMPLATE = "{prompt}\n\n{answer}"
PAIR_TEMPLATE = "{prompt}\n\nAnswer 1:\n{a}\n\nAnswer 2:\n{b}"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeConfig:
    """What must be known beside the weights to use a judge; kept in ``equilign_judge.json``.

    Attributes:
        kind: ``"reward"``, ``"pairwise"`` or ``"general"``.
        prompt_format: ``"chat"`` (the tokenizer's chat template), ``"pair"`` (the tokenizer's
            input of two sequences, as encoders have it) or ``"plain"`` (`template`, closed by
            the end token); None chooses the first of these that the tokenizer can do.
        scale: of the logit, see the judge's class; positive.
        max_length: tokens that the judge reads at most; None is what the model can take.
        template: for ``"plain"``, text with the fields ``{prompt}`` and ``{answer}``; of a
            pairwise judge the text of every format but ``"pair"``, with ``{prompt}``, ``{a}``
            and ``{b}``. None is `ANSWER_TEMPLATE` or `PAIR_TEMPLATE`.

    Raises:
        ModelError: an unknown kind or format, or a scale that is not positive.
    """

    kind: str
    prompt_format: str | None = None
    scale: float = 1.0
    max_length: int | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError(f"no judge of kind {self.kind!r}; there are {', '.join(KINDS)}")
        if self.prompt_format is not None and self.prompt_format not in FORMATS:
            raise ModelError(
                f"prompt_format must be one of {', '.join(FORMATS)}; got {self.prompt_format!r}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise ModelError(f"scale of a judge must be finite and positive; got {self.scale}")
        if self.max_length is not None and self.max_length < 1:
            raise ModelError(f"max_length must be at least 1 token; got {self.max_length}")
        _check_template(self)


def _check_template(config: JudgeConfig) -> None:
    wanted = ("prompt", "a", "b") if config.kind == "pairwise" else ("prompt", "answer")
    if config.template is None:
        return
    try:
        config.template.format(**dict.fromkeys(wanted, ""))
        lost = [name for name in wanted if f"{{{name}}}" not in config.template]
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"template {config.template!r} cannot be filled in: {error!r}") from error
    if lost:
        raise ModelError(f"template {config.template!r} lacks the fields {lost}")


def save_judge_config(folder: Path, config: JudgeConfig) -> None:
    """Write ``equilign_judge.json`` beside the weights."""
    write_json(Path(folder) / CONFIG_NAME, asdict(config))


def read_judge_config(folder: Path) -> JudgeConfig | None:
    """The judge's configuration, or None where the folder has none.

    Raises:
        ModelError: the file is malformed; names it.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(JudgeConfig)}
        return JudgeConfig(**{k: v for k, v in value.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def prompt_key(prompt: Prompt) -> Hashable:
    """Something equal for equal prompts that can be a dictionary key."""
    if isinstance(prompt, str):
        return prompt
    return tuple((m["role"], m["content"]) for m in prompt)


def win_probability(margin: np.ndarray) -> np.ndarray:
    """``sigmoid(margin)`` such that ``p(x) + p(-x) == 1`` and ``p(0) == 1/2`` exactly; any shape.

    Finite for every finite margin; nan stays nan.
    """
    margin = np.asarray(margin, dtype=np.float64)
    upper = 1.0 / (1.0 + np.exp(-np.abs(margin)))
    return np.asarray(np.where(margin < 0.0, 1.0 - upper, upper))


def as_text(prompt: Prompt) -> str:
    """A prompt as plain text: a single message is its content, more are ``role: content``."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _shorten(prompt: Prompt, characters: int) -> Prompt:
    """Without its first ``characters``; roles of messages stay."""
    if isinstance(prompt, str):
        return prompt[characters:]
    kept = []
    for message in prompt:
        cut = min(characters, len(message["content"]))
        kept.append({**message, "content": message["content"][cut:]})
        characters -= cut
    return kept


def _characters(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)


Encoded = Mapping[str, list[int]]
"""``input_ids``, and ``token_type_ids`` where the tokenizer makes them."""


class JudgeText:
    """Turns prompts with one answer, or two, into a judge's token ids.

    Args:
        tokenizer: the judge's own.
        config: its format and template; `JudgeConfig.prompt_format` may be None.
        max_length: tokens at most.

    Attributes:
        prompt_format: the format in use.
        cut_prompts: texts so far that lost the beginning of their prompt.
        cut_answers: texts so far that also lost the end of an answer.

    Raises:
        ModelError: the tokenizer cannot do the format.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", config: JudgeConfig, max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompt_format = config.prompt_format or default_format(tokenizer)
        default = PAIR_TEMPLATE if config.kind == "pairwise" else ANSWER_TEMPLATE
        self.template = default if config.template is None else config.template
        self.cut_prompts = self.cut_answers = 0
        if self.prompt_format == "chat" and not tokenizer.chat_template:
            raise ModelError(
                "prompt_format: chat needs a tokenizer with a chat template, and this one has "
                "none; use prompt_format: plain"
            )

    def encode(
        self, prompts: Sequence[Prompt], answers: Sequence[tuple[str, ...]]
    ) -> list[Encoded]:
        """Token ids of each prompt with its one answer or its two, at most `max_length` each."""
        encoded = self._tokenise(
            [self._render(p, a) for p, a in zip(prompts, answers, strict=True)]
        )
        for i, item in enumerate(encoded):
            if len(item["input_ids"]) > self.max_length:
                encoded[i] = self._cut(prompts[i], answers[i])
        return encoded

    def _render(self, prompt: Prompt, answers: tuple[str, ...]) -> tuple[str, ...]:
        """The text, or two texts, that the tokenizer gets."""
        if self.prompt_format == "pair":
            # Of two answers the second one is the second sequence: so token types tell them apart.
            *rest, last = as_text(prompt), *answers
            return f" {self.tokenizer.sep_token} ".join(rest), last
        if self.prompt_format == "chat" and len(answers) == 1:
            chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [*prompt]
            return (self._chat([*chat, {"role": "assistant", "content": answers[0]}]),)
        names = ("answer",) if len(answers) == 1 else ("a", "b")
        values = dict(zip(names, answers, strict=True))
        text = self.template.format(prompt=as_text(prompt), **values)
        if self.prompt_format == "plain":
            return (text,)
        return (self._chat([{"role": "user", "content": text}], add_generation_prompt=True),)

    def _chat(self, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        assert isinstance(text, str)  # noqa: S101 - one conversation gives one text
        return text

    def _tokenise(self, texts: Sequence[tuple[str, ...]]) -> list[Encoded]:
        if not texts:
            return []
        columns = [list(column) for column in zip(*texts, strict=True)]
        # A rendered chat holds its special tokens already; adding them again would double them.
        batch = self.tokenizer(
            *columns, add_special_tokens=self.prompt_format != "chat", verbose=False
        )
        names = [n for n in ("input_ids", "token_type_ids") if n in batch]
        rows = [{n: [int(v) for v in batch[n][i]] for n in names} for i in range(len(texts))]
        end = self.tokenizer.eos_token_id
        if self.prompt_format == "plain" and end is not None:
            for row in rows:
                if not row["input_ids"] or row["input_ids"][-1] != end:
                    for name, value in (("input_ids", end), ("token_type_ids", 0)):
                        if name in row:
                            row[name].append(value)
        return [*rows]

    def _cut(self, prompt: Prompt, answers: tuple[str, ...]) -> Encoded:
        """The prompt without its beginning, and answers without their ends if that is not enough.

        Text is cut, not tokens, so that special tokens and roles stay where they belong.
        """
        whole = answers
        encoded = self._tokenise([self._render(prompt, answers)])[0]
        while (over := len(encoded["input_ids"]) - self.max_length) > 0:
            left = _characters(prompt)
            per_token = (left + sum(map(len, answers))) / len(encoded["input_ids"])
            step = max(1, math.ceil(over * per_token))
            if left:
                prompt = _shorten(prompt, min(step, left))
            elif any(answers):
                answers = _without_end(answers, step)
            else:
                raise ModelError(
                    f"max_length = {self.max_length} tokens has no room even for empty texts, "
                    f"which take {len(encoded['input_ids'])} in the {self.prompt_format} format"
                )
            encoded = self._tokenise([self._render(prompt, answers)])[0]
        self._count(answers != whole)
        return encoded

    def _count(self, cut_answer: bool) -> None:
        if not self.cut_prompts:
            _LOG.warning(
                "a text is longer than the %d tokens that the judge reads; the beginning of its "
                "prompt is cut off (counted in cut_prompts, told once)",
                self.max_length,
            )
        if cut_answer and not self.cut_answers:
            _LOG.warning(
                "an answer alone is longer than the %d tokens that the judge reads; its end is "
                "cut off (counted in cut_answers, told once)",
                self.max_length,
            )
        self.cut_prompts += 1
        self.cut_answers += cut_answer


def _without_end(answers: tuple[str, ...], characters: int) -> tuple[str, ...]:
    """The longest answer without its last ``characters``."""
    longest = max(range(len(answers)), key=lambda i: len(answers[i]))
    text = answers[longest]
    short = text[: max(0, len(text) - characters)]
    return (*answers[:longest], short, *answers[longest + 1 :])


def default_format(tokenizer: "PreTrainedTokenizerBase") -> str:
    """``"chat"`` with a chat template, else ``"pair"`` with [CLS] and [SEP], else ``"plain"``."""
    if tokenizer.chat_template:
        return "chat"
    encoder = tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None
    return "pair" if encoder else "plain"
