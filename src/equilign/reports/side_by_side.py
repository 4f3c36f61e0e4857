"""Several runs as one summary, so that one page shows them side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from equilign.errors import DataError

_SAME = {
    "model": "the start model that win rates are over",
    "oracle": "the judge",
    "prompts": "the number of prompts",
}
_CURE = "`equilign tournament` lets different runs play each other under one judge."


def side_by_side(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """One summary of runs that answer the same question: same start model, judge and prompts.

    Every method's name is followed by that of its run. Times add up; the peak of memory is the
    largest one's.

    Args:
        runs: name and summary of each, see `equilign.reports.schema`.

    Raises:
        DataError: the runs differ in what makes their win rates comparable, or two of them have
            the same name.
    """
    names = [name for name, _ in runs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two of the runs are named {name}; rename one of the directories")
    for key, words in _SAME.items():
        told = [_compared(key, summary) for _, summary in runs]
        for name, other in zip(names[1:], told[1:], strict=True):
            if other != told[0]:
                raise DataError(
                    f"{names[0]} and {name} differ in {words} ({told[0]} and {other}), so their "
                    f"win rates do not belong side by side. {_CURE}"
                )
    first = runs[0][1]
    peaks = [s["peak_memory_mb"] for _, s in runs if s.get("peak_memory_mb") is not None]
    return {
        **{key: first[key] for key in (*_SAME, *_shared(runs)) if key in first},
        "command": "report",
        "seed": ", ".join(dict.fromkeys(str(s.get("seed")) for _, s in runs)),
        "seconds": sum(float(s.get("seconds") or 0.0) for _, s in runs),
        **({"peak_memory_mb": max(peaks)} if peaks else {}),
        "output_dir": ", ".join(str(s.get("output_dir", name)) for name, s in runs),
        "methods": {
            f"{method} ({name})": {**found, "title": f"{found.get('title') or method} ({name})"}
            for name, summary in runs
            for method, found in summary.get("methods", {}).items()
        },
        "config": {name: summary.get("config", {}) for name, summary in runs},
        "environment": {name: summary.get("environment", {}) for name, summary in runs},
    }


def _shared(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Further facts that the page says once, where all runs agree on them."""
    keys = ("samples_per_prompt", "start")
    return [key for key in keys if all(s.get(key) == runs[0][1].get(key) for _, s in runs)]


def _compared(key: str, summary: Mapping[str, Any]) -> object:
    found = summary.get(key)
    if key == "oracle":
        return found.get("name") if isinstance(found, Mapping) else None
    if key == "prompts":
        return found.get("evaluation") if isinstance(found, Mapping) else None
    return found
