"""The shipped reward heads do what their file says; their fit and their features are right."""

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from equilign.oracles.reward_heads import SHIPPED, STYLE_CAP, load_reward_heads
from equilign.oracles.slot_matching import count_unmet, prompt_slots
from equilign.oracles.text_features import FAULTS, fault_vector, phrase_vector, phrases

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "reward_heads"
NAMES = ("informativeness", "naturalness", "quality")
MILL = "name[The Mill], eatType[pub], food[Chinese], area[riverside]"
GOOD = "The Mill is a pub that serves Chinese food by the riverside."


@pytest.fixture(scope="module")
def heads():
    return load_reward_heads()


@pytest.fixture(scope="module")
def recipe():
    """The recipe's modules; their short names are taken out of `sys.modules` again."""
    sys.path.insert(0, str(RECIPE))
    before = set(sys.modules)
    try:
        import fit
        import ratings

        yield SimpleNamespace(fit=fit, ratings=ratings)
    finally:
        sys.path.remove(str(RECIPE))
        for name in {"fit", "ratings"} - before:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def held_out(recipe):
    return [c for c in recipe.ratings.read_comparisons() if recipe.ratings.is_test(c)]


# ---- the numbers in the file -------------------------------------------------------------------


def logits(head, pairs):
    prompts = [c.prompt for c in pairs]
    return head.score(prompts, [c.a for c in pairs]) - head.score(prompts, [c.b for c in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_held_out_numbers_belong_to_the_shipped_weights(name, heads, held_out):
    stated = json.loads(SHIPPED.read_text(encoding="utf-8"))["heads"][name]["held_out"]
    for dataset in (None, "BAGEL", "SFRES", "SFHOT"):
        pairs = [c for c in held_out if dataset in (None, c.dataset)]
        want = stated if dataset is None else stated["datasets"][dataset]
        rating = np.array([c.margin[name] for c in pairs])
        right = logits(heads[name], pairs)[rating != 0] * np.sign(rating[rating != 0])
        assert want["pairs"] == len(right)
        assert want["ties"] == len(pairs) - len(right)
        assert want["accuracy"] == np.mean((right > 0) + (right == 0) / 2)
        assert want["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-right))), abs=1e-12)
    assert heads[name].held_out == (stated["accuracy"], stated["low"], stated["high"])


@pytest.mark.parametrize("name", NAMES)
def test_heads_beat_a_coin_on_held_out_ratings(name, heads):
    # The whole 95 % interval lies above one half: 0.52, 0.56 and 0.58 when written.
    assert heads[name].held_out[1] > 0.5


def test_split_keeps_meaning_representations_apart(recipe, held_out):
    everything = recipe.ratings.read_comparisons()
    groups = {c.group for c in held_out}
    training = {c.group for c in everything if not recipe.ratings.is_test(c)}
    assert not groups & training
    assert len(held_out) + sum(c.group in training for c in everything) == len(everything) == 948
    assert 0.15 < len(groups) / len(groups | training) < 0.25


def test_readme_states_the_numbers_of_the_file():
    text = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    for name, head in json.loads(SHIPPED.read_text(encoding="utf-8"))["heads"].items():
        m = head["held_out"]
        row = (
            f"| {name} | {m['accuracy']:.3f} | {m['low']:.3f} to {m['high']:.3f} "
            f"| {m['log_loss']:.3f} | {m['pairs']} | {m['ties']} |"
        )
        assert row in text


def test_asset_is_small():
    assert SHIPPED.stat().st_size < 300_000


# ---- the fit -----------------------------------------------------------------------------------


def features_of(recipe, faults, style_a=None, style_b=None):
    none = np.zeros((len(faults), 0))
    return recipe.fit.Features(
        np.asarray(faults, dtype=float),
        none if style_a is None else style_a,
        none if style_b is None else style_b,
    )


def test_one_fault_gives_the_log_odds_of_its_wins(recipe):
    # 9 of 12 pairs are won by the answer without the fault: Bradley-Terry gives ln(9 / 3).
    signs = np.array([1.0] * 9 + [-1.0] * 3)
    x = features_of(recipe, np.ones((12, 1)))
    weights = recipe.fit.fit_weights(x, signs, recipe.fit.Penalty(1.0, 1e-12, 1.0))
    assert weights == pytest.approx([np.log(3.0)], abs=1e-4)


def test_fault_cost_is_never_negative_and_unseen_faults_keep_their_prior(recipe):
    signs = np.array([-1.0] * 9 + [1.0] * 3)
    x = features_of(recipe, np.stack([np.ones(12), np.zeros(12)], axis=1))
    weights = recipe.fit.fit_weights(x, signs, recipe.fit.Penalty(2.0, 0.1, 1.0))
    assert weights.tolist() == [0.0, 2.0]


def test_objective_value_and_gradient(recipe):
    rng = np.random.default_rng(0)
    faults, a, b = rng.normal(size=(7, 2)), rng.random((7, 3)), rng.random((7, 3))
    x = features_of(recipe, faults, a, b)
    signs = rng.choice([-1.0, 1.0], 7)
    w, mean, ridge = rng.normal(size=5), rng.normal(size=5), rng.random(5)
    value, gradient = recipe.fit.objective(w, x, signs, mean, ridge)
    loss = 0.0
    for row in range(7):
        left = STYLE_CAP * np.tanh(sum(a[row, k] * w[2 + k] for k in range(3)) / STYLE_CAP)
        right = STYLE_CAP * np.tanh(sum(b[row, k] * w[2 + k] for k in range(3)) / STYLE_CAP)
        gap = left - right + faults[row, 0] * w[0] + faults[row, 1] * w[1]
        loss -= np.log(1.0 / (1.0 + np.exp(-signs[row] * gap)))
    loss += sum(0.5 * ridge[k] * (w[k] - mean[k]) ** 2 for k in range(5))
    assert value == pytest.approx(loss, rel=1e-12)
    for k in range(5):
        step = np.zeros(5)
        step[k] = 1e-6
        up, down = (recipe.fit.objective(w + s, x, signs, mean, ridge)[0] for s in (step, -step))
        assert gradient[k] == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_wilson_interval_of_a_known_case(recipe):
    # 8 of 10 by the closed form with z = 1.959964: 0.4902 to 0.9433.
    assert recipe.fit.wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


# ---- from the ratings to attribute lists -------------------------------------------------------


def test_meaning_representation_becomes_an_attribute_list(recipe):
    meaning = "inform(name='X',type=placetoeat,eattype=restaurant,pricerange=expensive,near='X')"
    assert recipe.ratings.attribute_list(meaning) == (
        "name[Xname], eatType[restaurant], priceRange[high], near[Xnear]"
    )
    sentence = "x is a restaurant in the x area near x."
    assert recipe.ratings.name_hidden_places(sentence) == (
        "xname is a restaurant in the xarea area near xnear."
    )
    twice = "inform(name=chow,kids_allowed=yes,food=thai,food='new american',price_range=dont_care)"
    assert recipe.ratings.attribute_list(twice) == (
        "name[chow], familyFriendly[yes], food[thai], also food[new american]"
    )
    with pytest.raises(ValueError, match="not an act"):
        recipe.ratings.attribute_list("name[chow]")


# ---- the features ------------------------------------------------------------------------------


def fault(answer, name, heads, prompt=MILL):
    tables = heads["quality"].tables
    return fault_vector(prompt, answer, tables)[FAULTS.index(name)]


def test_faults_by_hand(heads):
    assert fault(GOOD, "missing", heads) == 0.0
    assert fault("The Mill is a pub by the river.", "missing", heads) == 0.25
    assert fault("The Mill is a coffee shop.", "missing", heads) == 0.75
    assert fault("The Mill is a coffee shop.", "invented", heads) == 0.5
    assert fault("The Mill is a cheap coffee shop.", "invented", heads) == 1.0
    assert fault("The Mill is a pub.", "short", heads) == pytest.approx(0.5)
    assert fault(GOOD + " Chinese, Chinese.", "repeated_value", heads) == pytest.approx(2 / 3)
    assert fault("The Mill, is a pub.", "comma_before_verb", heads) == 1.0
    assert fault("The Mill is an pub.", "article", heads) == 1.0
    assert fault("The Mill is a pub and", "dangling", heads) == 1.0
    assert fault("The Mill is a pub", "no_stop", heads) == 1.0
    assert fault("The Mill, pub, Chinese, riverside.", "bare_list", heads) == 1.0
    clean = [n for n in FAULTS if n not in ("odd_order",)]
    assert [fault(GOOD, n, heads) for n in clean] == [0.0] * len(clean)


def test_case_accents_and_quotes_do_not_matter(heads):
    prompt = "name[Café Rouge], familyFriendly[no]"
    plain = "cafe rouge isn't family friendly."
    fancy = "CAFÉ ROUGE isn’t family\u00a0friendly."
    for head in heads.values():
        assert head.score([prompt], [plain])[0] == head.score([prompt], [fancy])[0]


@pytest.mark.parametrize(
    ("value", "sentence", "unmet"),
    [
        ("priceRange[moderate]", "It is moderately priced.", (0, 0)),
        ("priceRange[less than £20]", "Its prices are low.", (0, 0)),
        ("priceRange[high]", "It is cheap.", (1, 1)),
        ("customer rating[5 out of 5]", "It is highly rated.", (0, 0)),
        ("customer rating[low]", "It has a high customer rating.", (1, 1)),
        ("familyFriendly[no]", "It is not a place for children.", (0, 0)),
        ("familyFriendly[yes]", "It is not family-friendly.", (1, 1)),
        ("phone[4157716449]", "the number is 4157716449.", (0, 0)),
        ("dogs allowed[yes]", "it does not allow dogs.", (1, 1)),
        ("near[Café Rouge]", "It is near cafe rouge.", (0, 0)),
    ],
)
def test_slot_matching(value, sentence, unmet):
    slots = {k: v.lower().replace("é", "e") for k, v in prompt_slots(value).items()}
    assert count_unmet(slots, sentence.lower()) == unmet


def test_features_are_bounded_and_phrases_do_not_add_up(heads):
    head = heads["quality"]
    rng = random.Random(5)
    words = ["the", "a", "is", ",", ".", "near", "pub", "cheap", "Mill", "(", "xq", "\n"]
    for _ in range(300):
        answer = " ".join(rng.choices(words, k=rng.randrange(60)))
        faults = fault_vector(MILL, answer, head.tables)
        assert (faults >= 0).all()
        assert (faults <= 1).all()
        shares = phrase_vector(MILL, answer, head.phrases)
        assert (shares >= 0).all()
        assert shares.sum() <= 1 + 1e-12
        assert head.score([MILL], [answer])[0] <= STYLE_CAP
    assert phrases(MILL, "<name> <start> the") == phrases(MILL, "name start the")
