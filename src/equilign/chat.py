"""Prompts and answers as rows hold them: plain text, or chat messages."""

from collections.abc import Mapping
from typing import Any

from equilign.errors import DataError
from equilign.games.records import excerpt

Message = dict[str, str]
Prompt = str | list[Message]
"""Plain text, or chat messages; as in `equilign.rollout.types`."""

CURE = "The formats are explained in docs/how-to/data-formats.md."


def is_conversational(prompt: Prompt) -> bool:
    """Whether a prompt is chat messages."""
    return not isinstance(prompt, str)


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as chat messages: text becomes one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def as_text(prompt: Prompt) -> str:
    """A prompt as plain text, where that loses nothing.

    Raises:
        DataError: several messages, or one that is not a user's.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    roles = ", ".join(m["role"] for m in prompt)
    raise DataError(
        f"a chat of {len(prompt)} messages ({roles}) cannot become plain text without losing who "
        "said what; keep it conversational"
    )


def prompt_text(prompt: Prompt) -> str:
    """The prompt as plain text, for oracles and for people.

    A single user message is its content; longer chats are ``role: content`` lines.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def check_messages(value: Any, name: str, where: str) -> list[Message]:  # noqa: ANN401
    """``value`` as chat messages, with nothing but a role and a content each.

    Args:
        value: what stood in the column.
        name: of the column.
        where: file and row, for messages.

    Raises:
        DataError: it is no list of messages.
    """
    if not isinstance(value, list) or not value:
        raise DataError(
            f'{where}: "{name}" is {excerpt(value)}; it must be text or a list of chat messages. '
            f"{CURE}"
        )
    for message in value:
        good = isinstance(message, Mapping) and all(
            isinstance(message.get(key), str) for key in ("role", "content")
        )
        if not good:
            raise DataError(
                f'{where}: "{name}" holds {excerpt(message)}; every chat message needs a "role" '
                'and a "content", both text'
            )
    return [{"role": m["role"], "content": m["content"]} for m in value]


def check_prompt(value: Any, where: str) -> Prompt:  # noqa: ANN401
    """``value`` as a prompt.

    Raises:
        DataError: empty, or neither text nor messages.
    """
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f'{where}: "prompt" is empty')
        return value
    return check_messages(value, "prompt", where)


def check_answer(value: Any, name: str, where: str, prompt: Prompt) -> str:  # noqa: ANN401
    """The text of one assistant message; messages that repeat the prompt first are accepted.

    Raises:
        DataError: neither text nor one assistant message.
    """
    if isinstance(value, str):
        return value
    found = check_messages(value, name, where)
    head = as_messages(prompt)
    if len(found) > len(head) and found[: len(head)] == head:
        found = found[len(head) :]
    if len(found) != 1 or found[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in found)
        raise DataError(
            f'{where}: "{name}" must be one assistant message after the prompt; it has '
            f"{len(found)} ({roles}). Put earlier turns into the prompt"
        )
    return found[0]["content"]
