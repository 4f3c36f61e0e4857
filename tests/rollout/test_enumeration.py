"""All answers of a small model, against scoring each of them and against sampling."""

import numpy as np
import pytest
import torch

from equilign.rollout import SamplingConfig, TransformersSampler
from equilign.rollout.enumeration import answer_law, count_answers
from tests.enumerable import RESPONSES, exact_logps, tiny_model, tiny_tokenizer

SPOKEN = ("", "a", "a a", "a b", "b", "b a", "b b")


def law_of(model, prompt="a b", **options):
    config = SamplingConfig(**{"max_new_tokens": 2, **options})
    law = answer_law(model, tiny_tokenizer(), prompt, config, batch_size=2)
    assert sum(law.probabilities) == pytest.approx(1.0, abs=1e-9)
    return dict(zip(law.texts, law.probabilities, strict=True))


def test_probabilities_are_those_that_scoring_gives():
    model = tiny_model(seed=1)
    found = law_of(model)
    scored = np.exp(exact_logps(model, tiny_tokenizer()("a b")["input_ids"]))
    # In the order of RESPONSES: END, a END, a a, a b, b END, b a, b b.
    assert found == pytest.approx(dict(zip(SPOKEN, scored, strict=True)), abs=1e-9)
    assert len(RESPONSES) == count_answers(model, tiny_tokenizer(), 2) == 7
    assert count_answers(model, tiny_tokenizer(), 1) == 3
    assert count_answers(model, tiny_tokenizer(), 4) == 31


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"top_p": 0.6}, {"temperature": 0.0}, {"max_new_tokens": 3}],
    ids=str,
)
def test_it_is_the_law_that_is_sampled(options):
    """Twenty thousand samples; four standard errors."""
    model, count = tiny_model(seed=2, spread=0.5), 20_000
    config = SamplingConfig(**{"max_new_tokens": 2, **options, "batch_size": count})
    found = law_of(model, **options)
    (group,) = TransformersSampler(model, tiny_tokenizer(), config).sample(["a b"], count, 0)
    texts = [c.text for c in group.completions]
    for text, chance in found.items():
        error = (chance * (1 - chance) / count) ** 0.5
        assert abs(texts.count(text) / count - chance) <= 4 * error + 1e-9
    assert set(texts) <= {t for t, p in found.items() if p > 0.0}


def test_texts_that_read_the_same_are_one_answer():
    """With two end tokens an answer can end in two ways."""
    model = tiny_model(seed=1)
    model.generation_config.eos_token_id = [0, 2]
    found = law_of(model)
    assert set(found) == {"", "b", "a", "a b", "a a"}
    with torch.no_grad():
        first = model(torch.tensor([[1, 2]])).logits[0, -1].double().softmax(-1)
    assert found[""] == pytest.approx(float(first[0]), abs=1e-6)
    assert found["b"] == pytest.approx(float(first[2]), abs=1e-6)
    assert count_answers(model, tiny_tokenizer(), 2) == 2 + 1 * 2 + 1


def test_what_is_not_shown_makes_answers_one():
    """A token that is left out of the text: three sequences read as nothing at all."""
    model, tokenizer = tiny_model(seed=1), tiny_tokenizer()
    tokenizer.add_special_tokens({"unk_token": "b"})  # left out of texts, like the end token
    config = SamplingConfig(max_new_tokens=2)
    law = answer_law(model, tokenizer, "a b", config)
    found = dict(zip(law.texts, law.probabilities, strict=True))
    end, a_end, a_a, a_b, b_end, b_a, b_b = np.exp(
        exact_logps(model, tiny_tokenizer()("a b")["input_ids"])
    )
    wanted = {"": end + b_end + b_b, "a": a_end + a_b + b_a, "a a": a_a}
    assert found == pytest.approx(wanted, abs=1e-9)
