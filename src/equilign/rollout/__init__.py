"""Who answers, and with which probability."""

from equilign.rollout.encoding import (
    encode_completion,
    encode_prompt,
    end_tokens,
    pad_token,
)
from equilign.rollout.generate import SamplingConfig, TransformersSampler
from equilign.rollout.scoring import (
    completion_logps,
    completion_token_logps,
    pad_pairs,
    score_answers,
    score_completions,
)
from equilign.rollout.server import ServedCompletion, ServerOptions, ServerSampler
from equilign.rollout.types import (
    Completion,
    Group,
    Message,
    MixtureSampler,
    Prompt,
    Sampler,
    prompt_text,
)
from equilign.rollout.vllm import AdapterPush, NcclPush, VLLMSampler, WeightPush

__all__ = [
    "AdapterPush",
    "Completion",
    "Group",
    "Message",
    "MixtureSampler",
    "NcclPush",
    "Prompt",
    "Sampler",
    "SamplingConfig",
    "ServedCompletion",
    "ServerOptions",
    "ServerSampler",
    "TransformersSampler",
    "VLLMSampler",
    "WeightPush",
    "completion_logps",
    "completion_token_logps",
    "encode_completion",
    "encode_prompt",
    "end_tokens",
    "pad_pairs",
    "pad_token",
    "prompt_text",
    "score_answers",
    "score_completions",
]
