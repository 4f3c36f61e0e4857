"""Judges learned from pairwise preferences, and how good they are."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equilign.fitting.bases import ScratchSize
    from equilign.fitting.config import FitConfig
    from equilign.fitting.fit import Places, fit_judge
    from equilign.fitting.measures import Measures, measure
    from equilign.fitting.run import run_fit_oracle
    from equilign.fitting.sources import SOURCES, load_pairs
    from equilign.fitting.split import Split, split_pairs

_HOME = {
    "FitConfig": "config",
    "Measures": "measures",
    "Places": "fit",
    "SOURCES": "sources",
    "ScratchSize": "bases",
    "Split": "split",
    "fit_judge": "fit",
    "load_pairs": "sources",
    "measure": "measures",
    "run_fit_oracle": "run",
    "split_pairs": "split",
}

__all__ = [
    "SOURCES",
    "FitConfig",
    "Measures",
    "Places",
    "ScratchSize",
    "Split",
    "fit_judge",
    "load_pairs",
    "measure",
    "run_fit_oracle",
    "split_pairs",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    """Imported when asked for: the command line reads the options without loading torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(import_module(f"equilign.fitting.{_HOME[name]}"))[name]
