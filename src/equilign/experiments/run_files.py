"""The run directory of a training: like any other, with nested options."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from equilign.runs import RunDirectory

FREE = frozenset(
    f"args.{name}"
    for name in (
        "dataloader_num_workers",
        "disable_tqdm",
        "logging_first_step",
        "logging_steps",
        "logging_strategy",
        "log_level",
        "log_level_replica",
        "project",
        "report_to",
        "run_name",
        "save_total_limit",
    )
)
"""Options that decide no result, so that a run may be resumed with others."""


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested options as (dotted name, value)."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


@dataclass(frozen=True)
class TrainDirectory(RunDirectory):
    """`RunDirectory` whose options are compared one by one, however deep they are."""

    def _check_same(self, held: dict[str, Any], config: dict[str, Any], resume: bool) -> None:
        there = {k: v for k, v in flat(held) if k not in FREE}
        now = {k: v for k, v in flat(config) if k not in FREE}
        # Options that only one version of transformers knows are no difference.
        for name in [k for k in {**there, **now} if k.startswith("args.")]:
            if name not in there or name not in now:
                there.pop(name, None)
                now.pop(name, None)
        super()._check_same(there, now, resume)
