"""Who answers, and with which probability."""

from equilign.rollout.generate import (
    SamplingConfig,
    TransformersSampler,
    encode_prompt,
    end_tokens,
    pad_token,
)
from equilign.rollout.scoring import (
    completion_logps,
    pad_pairs,
    score_answers,
    score_completions,
)
from equilign.rollout.types import (
    Completion,
    Group,
    Message,
    MixtureSampler,
    Prompt,
    Sampler,
    prompt_text,
)

__all__ = [
    "Completion",
    "Group",
    "Message",
    "MixtureSampler",
    "Prompt",
    "Sampler",
    "SamplingConfig",
    "TransformersSampler",
    "completion_logps",
    "encode_prompt",
    "end_tokens",
    "pad_pairs",
    "pad_token",
    "prompt_text",
    "score_answers",
    "score_completions",
]
