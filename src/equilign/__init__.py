"""equilign: align language models by playing preference games."""

from importlib.metadata import version

from equilign.games import PreferenceGame, Solution, solve
from equilign.play import Trajectory, play

__version__ = version("equilign")
__all__ = ["PreferenceGame", "Solution", "Trajectory", "__version__", "play", "solve"]
