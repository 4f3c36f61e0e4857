"""equilign: align language models by playing preference games."""

from importlib.metadata import version

from equilign.games import PreferenceGame

__version__ = version("equilign")
__all__ = ["PreferenceGame", "__version__"]
