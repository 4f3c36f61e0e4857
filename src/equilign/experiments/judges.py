"""The judges of a run: from a specification, and described for its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equilign.errors import ConfigError
from equilign.oracles import Oracle, Panel
from equilign.oracles.build import build_oracle
from equilign.tasks.oracles import TASK_ORACLES
from equilign.tasks.restaurant_panel import restaurant_panel


def _restaurant(options: Mapping[str, Any], context: object) -> Oracle:
    if options:
        raise ConfigError(f"oracle of kind 'restaurant' has no options; got {', '.join(options)}")
    return restaurant_panel()


def make_oracle(spec: Mapping[str, Any], base: str | Path) -> Oracle:
    """The oracle of a specification, the judges of `equilign.tasks` included.

    Raises:
        ConfigError: see `equilign.oracles.build.build_oracle`.
        ModelError: a judge that cannot be loaded.
    """
    return build_oracle(spec, Path(base), {"restaurant": _restaurant, **TASK_ORACLES})


def describe_oracle(oracle: Oracle | None, name: str) -> dict[str, Any]:
    """Who judged, with what is known about each voter of a panel."""
    attributes = []
    for a in oracle.attributes if isinstance(oracle, Panel) else ():
        accuracy, low, high = a.held_out or (None, None, None)
        attributes.append(
            {
                "name": a.name,
                "description": a.description,
                "kind": a.kind,
                "held_out_accuracy": accuracy,
                "low": low,
                "high": high,
            }
        )
    return {"name": name, "attributes": attributes}


def oracle_name(spec: Mapping[str, Any] | None) -> str:
    """A specification in a few words."""
    if spec is None:
        return "none"
    if spec.get("kind") == "restaurant":
        return "restaurant panel"
    what = next((str(spec[k]) for k in ("path", "function", "model", "game") if k in spec), "")
    return f"{spec.get('kind')} {what}".strip()
