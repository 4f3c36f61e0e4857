"""Loading models: from folders, the shipped one among them; from a hub only when asked to."""

import re
from importlib import resources
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from equilign.errors import ModelError

SHIPPED = "shipped"
"""The name of the chat model inside the package."""


def shipped_model_path() -> Path:
    """Folder of the chat model that comes with the package.

    Raises:
        ModelError: the package was installed without its data files.
    """
    path = Path(str(resources.files("equilign") / "assets" / "chat"))
    if not (path / "model.safetensors").is_file():
        raise ModelError(f"the shipped model is missing from {path}; reinstall equilign")
    return path


def _source(name_or_path: str | Path) -> str:
    """A folder if there is one, else a name that transformers may know.

    Raises:
        ModelError: it looks like a path but no model is there.
    """
    if str(name_or_path) == SHIPPED:
        return str(shipped_model_path())
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is no model folder: it has no config.json")
        return str(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name_or_path)):
        return str(name_or_path)
    raise ModelError(
        f"no model folder at {name_or_path}. Give a folder written by save_pretrained, "
        f"or '{SHIPPED}' for the model that comes with equilign."
    )


def load_model(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    allow_download: bool = False,
) -> PreTrainedModel:
    """A causal language model in ``dtype``.

    Args:
        name_or_path: a folder, ``"shipped"``, or the name of a model on a hub.
        dtype: of the weights.
        allow_download: whether a name may be fetched from the hub; otherwise only what is
            already in the local cache is used and no network call is made.

    Raises:
        ModelError: not a model folder, or one that transformers cannot read; says why.
    """
    source = _source(name_or_path)
    try:
        return AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=not allow_download
        )
    except Exception as error:
        raise ModelError(f"cannot load a language model from {source}: {error}") from error


def load_tokenizer(
    name_or_path: str | Path, *, allow_download: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; arguments as in `load_model`.

    Raises:
        ModelError: there is none that transformers can read.
    """
    source = _source(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=not allow_download)
    except Exception as error:
        raise ModelError(f"cannot load a tokenizer from {source}: {error}") from error
