"""Processes that a launcher started know each other, or say that they do not."""

import pytest
from accelerate import Accelerator

from equilign.errors import ConfigError
from equilign.trainers.team import Team


def test_alone(monkeypatch):
    for value in (None, "1", "", "none"):
        if value is None:
            monkeypatch.delenv("WORLD_SIZE", raising=False)
        else:
            monkeypatch.setenv("WORLD_SIZE", value)
        team = Team.of(Accelerator(cpu=True))
        assert (team.rank, team.size, team.is_main) == (0, 1, True)


def test_one_of_several_that_thinks_itself_alone_is_stopped(monkeypatch):
    """As under `accelerate launch` without GPUs and without `use_cpu`."""
    accelerator = Accelerator(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"started 2 processes.*use_cpu: true"):
        Team.of(accelerator)
