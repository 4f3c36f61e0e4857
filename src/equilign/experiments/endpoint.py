"""A model on a server, as users write it down."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from equilign.errors import ConfigError
from equilign.experiments.options import check_options
from equilign.rollout import SamplingConfig, ServerOptions, ServerSampler


def options_of_server(spec: Mapping[str, Any], where: str = "endpoint") -> ServerOptions:
    """The options that a specification stands for.

    Args:
        spec: ``model``, ``base_url`` and any other field of `ServerOptions`; values may be text.
        where: the section, for messages.

    Raises:
        ConfigError: an option is unknown or out of range, or ``model`` or ``base_url`` is missing.
    """
    given = check_options(ServerOptions, spec, where)
    for name in ("model", "base_url"):
        if not given.get(name):
            raise ConfigError(
                f"{where}.{name} is missing: a model on a server has a name and a URL"
            )
    return ServerOptions(**given)


def endpoint_sampler(
    spec: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingConfig,
    where: str = "endpoint",
) -> ServerSampler:
    """A sampler of a model on a server; the one place that makes them from a specification.

    Args:
        spec: as of `options_of_server`.
        tokenizer: of the server's model.
        sampling: how to draw.
        where: the section, for messages.

    Raises:
        ConfigError: as of `options_of_server`; or the key is not set.
        ModelError: no token is known that ends an answer.
    """
    return ServerSampler(tokenizer, sampling, options_of_server(spec, where))
