"""The card of a trained model: what it is, how it was made, how it compares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from equilign.files import write_atomically
from equilign.methods import Method
from equilign.text import visible

_PACKAGES = ("equilign", "torch", "transformers", "peft", "datasets", "accelerate")


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        method: what trained the model.
        base_model: what it started from, as the user named it.
        adapter: whether the folder holds a PEFT adapter instead of whole weights.
        data: what was trained on, in words.
        oracle: who judged, in words.
        held_out_oracle: the second judge, in words; None where there was none.
        options: the options that were set, nested.
        rounds: results per round, as in the summary.
        prompts: how many held-out prompts the win rates are over.
        samples: answers per prompt and side.
        seconds: of training.
        environment: of the run, with its packages.
        players: how a Leader and a Follower share their weights; None where there is one player.
    """

    method: Method
    base_model: str
    adapter: bool
    data: str
    oracle: str
    held_out_oracle: str | None
    options: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    prompts: int
    samples: int
    seconds: float
    environment: Mapping[str, Any]
    players: str | None = None


def _front_matter(card: Card) -> str:
    values: dict[str, Any] = {
        "library_name": "peft" if card.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["equilign", card.method.name, "preference-games", "alignment"],
    }
    if card.base_model != "shipped":
        values = {"base_model": card.base_model, **values}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['win_rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _results(card: Card) -> str:
    judged = [r for r in card.rounds if r.get("win_rate") is not None]
    if not judged:
        return "The model was not compared with the start model.\n"
    second = any("held_out" in r for r in judged)
    head = ["round", "win rate (95 % interval)", "KL to start (nats)", "tokens per answer"]
    head += ["held-out judge"] if second else []
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for r in judged:
        cells = [str(r["round"]), _interval(r), f"{r['kl_nats']:.2f}", f"{r['mean_tokens']:.1f}"]
        cells += [_interval(r["held_out"]) if "held_out" in r else ""] if second else []
        lines.append(f"| {' | '.join(cells)} |")
    words = (
        f"Win rate against the start model on {card.prompts} prompts that were not trained on, "
        f"{card.samples} answers each; ties count one half, intervals are over prompts."
    )
    return words + "\n\n" + "\n".join(lines) + "\n"


def _loading(card: Card) -> str:
    kind = "AutoPeftModelForCausalLM" if card.adapter else "AutoModelForCausalLM"
    package = "peft" if card.adapter else "transformers"
    apart = card.players not in (None, "shared")
    own = "this folder, the Leader's part of it" if apart else "this folder"
    code = (
        f"from {package} import {kind}\n"
        "from transformers import AutoTokenizer\n\n"
        f'folder = "{"leader" if apart else "."}"  # {own}\n'
        f"model = {kind}.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    )
    return f"```python\n{code}```\n{_following(card)}"


def _following(card: Card) -> str:
    """How the second of two players is used."""
    if card.players is None:
        return ""
    folder = "." if card.players == "shared" else "follower"
    same = "The same model" if card.players == "shared" else "The model in `follower`"
    return (
        f"\n{same} improves answers, its own and other models'. It is shown them as it was in "
        "training:\n\n"
        "```python\n"
        "from pathlib import Path\n\n"
        "from equilign.rollout.follower import FollowerPrompt\n\n"
        f'shown = FollowerPrompt.load(Path("{folder}"))\n'
        "prompt = shown.of(prompt, answer)  # chat messages, or text\n"
        "```\n"
    )


def card_text(card: Card) -> str:
    """The card as Markdown with YAML front matter."""
    base = "the chat model that comes with equilign" if card.base_model == "shipped" else None
    versions = card.environment.get("packages", {})
    facts = [
        ("Method", f"{card.method.title} (`{card.method.name}`), {card.method.paper}"),
        ("Game", card.method.game),
        ("Start model", base or f"`{card.base_model}`"),
        ("Weights", "a PEFT adapter of the start model" if card.adapter else "all"),
        ("Data", card.data),
        ("Judge", card.oracle),
        ("Held-out judge", card.held_out_oracle or "none"),
        ("Training time", f"{card.seconds:.0f} seconds"),
        ("Versions", ", ".join(f"{n} {versions[n]}" for n in _PACKAGES if n in versions)),
    ]
    options = yaml.safe_dump(dict(card.options), sort_keys=False, allow_unicode=True)
    return (
        f"{_front_matter(card)}\n"
        f"# {card.method.title}, from {base or card.base_model}\n\n"
        "Aligned by playing a preference game with equilign.\n\n"
        + "\n".join(f"- **{name}**: {visible(value, newlines=False)}" for name, value in facts)
        + f"\n\n## Results\n\n{_results(card)}\n## Use\n\n{_loading(card)}\n"
        + f"## Options\n\nWhat was set; everything else had its default.\n\n```yaml\n{options}```\n"
    )


def write_card(card: Card, folder: Path) -> None:
    """Write ``README.md`` into ``folder``."""
    write_atomically(folder / "README.md", card_text(card))
