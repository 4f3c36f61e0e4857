import copy
import json

import pytest

from equilign.reports.page import report_html

from .dom import parse

HOSTILE = {
    "script": "</script><script>document.title='owned';alert(1)</script>",
    "image": "<img src=x onerror=\"document.title='owned'\">",
    "entity": "&lt;b&gt; stays &amp; stays, 'quotes' \"double\"",
    "template": "{{ 7 * 7 }} {% raw %} ${x}",
    "ansi": "\x1b[31mred\x1b[0m\x07",
    "controls": "nul\x00 bell\x07 c1\x9b\x85 del\x7f",
    "bidi": "safe\u202eevil\u2066\u200b\ufeff",
    "surrogate": "half \ud83d pair \udc00",
    "comment": "<!-- --><![CDATA[ ]]></style></textarea></title><svg onload=alert(1)>",
    "long": "a" * 5000,
}

ATTRIBUTES = {
    "informativeness": ("says what was asked for", "learned", 0.652, 0.61, 0.69),
    "naturalness": ("reads like a person wrote it", "learned", 0.58, 0.54, 0.62),
    "quality": ("overall quality", "learned", 0.613, 0.57, 0.65),
    "coverage": ("every value appears in the text", "rule", None, None, None),
    "brevity": ("fewer words", "rule", None, None, None),
}
FINAL_ATTRIBUTES = {
    "informativeness": {"win_rate": 0.68, "low": 0.62, "high": 0.74},
    "naturalness": {"win_rate": 0.53, "low": 0.46, "high": 0.6},
    "quality": {"win_rate": 0.61, "low": 0.55, "high": 0.67},
    "coverage": {"win_rate": 0.66, "low": 0.6, "high": 0.72},
    "brevity": {"win_rate": 0.31, "low": 0.25, "high": 0.37},
}


def make_rounds(rates, kls):
    return [
        {
            "round": i,
            "win_rate": rate,
            "low": rate - 0.05,
            "high": rate + 0.05,
            "kl_nats": kl,
            "mean_tokens": 26 + i,
            "loss": 4.0 - i / 3,
            "seconds": 61.0 + i,
            "cycles": {
                "prompts": 128,
                "with_cycle": 14 + i,
                "share": (14 + i) / 128,
                "low": (14 + i) / 128 - 0.05,
                "high": (14 + i) / 128 + 0.07,
                "condorcet_share": 0.8,
            },
        }
        for i, (rate, kl) in enumerate(zip(rates, kls, strict=True), 1)
    ]


def make_examples(count):
    places = ["The Mill", "Blue Spice", "The Wrestlers", "Cocum"]
    scores = [0.8, 0.35, 0.5, 0.92, 0.61]
    return [
        {
            "prompt": f"name[{places[i % 4]}], eatType[pub], food[French], near[Café {i}]",
            "before": f"{places[i % 4]} is a pub that serves French food near Café {i}.",
            "after": f"For French cooking in a pub, try {places[i % 4]}. It stands near Café {i}.",
            "win_prob": scores[i % 5],
            "attributes": {
                "informativeness": 1.0,
                "naturalness": 0.5,
                "quality": float(scores[i % 5] > 0.5),
                "brevity": 0.0,
            },
        }
        for i in range(count)
    ]


BASE = {
    "command": "demo",
    "seed": 7,
    "model": "the shipped chat model",
    "output_dir": "runs/demo",
    "seconds": 312.4,
    "peak_memory_mb": 1402.0,
    "prompts": {"train": 256, "evaluation": 128},
    "samples_per_prompt": 5,
    "oracle": {
        "name": "restaurant panel",
        "attributes": [
            {
                "name": name,
                "description": description,
                "kind": kind,
                "held_out_accuracy": accuracy,
                "low": low,
                "high": high,
            }
            for name, (description, kind, accuracy, low, high) in ATTRIBUTES.items()
        ],
    },
    "methods": {
        "sppo": {
            "title": "SPPO",
            "paper": "arXiv:2405.00675",
            "seconds": 280.0,
            "rounds": make_rounds([0.57, 0.61, 0.64], [0.7, 1.4, 2.2]),
            "final": {
                "win_rate": 0.63,
                "low": 0.58,
                "high": 0.68,
                "kl_nats": 2.1,
                "mean_tokens": 29.1,
                "attributes": FINAL_ATTRIBUTES,
            },
            "examples": make_examples(45),
        }
    },
    "start": {"mean_tokens": 26.0},
    "config": {"train": {"rounds": 3, "lr": 1e-5, "flags": [True, None]}, "seed": 7},
    "environment": {"python": "3.11.7", "torch": "2.13.0"},
}


@pytest.fixture
def summary():
    return copy.deepcopy(BASE)


@pytest.fixture
def two_methods(summary):
    second = copy.deepcopy(summary["methods"]["sppo"])
    second.update(title="Nash-MD", paper="arXiv:2312.00886", seconds=301.0)
    second["rounds"] = make_rounds([0.54, 0.55, 0.53], [0.3, 0.5, 0.8])
    second["final"].update(win_rate=0.53, low=0.47, high=0.59, kl_nats=0.8)
    for item in second["final"]["attributes"].values():
        item.update({key: value - 0.04 for key, value in item.items()})
    second["examples"] = make_examples(7)
    summary["methods"]["nash_md"] = second
    return summary


@pytest.fixture
def hostile_texts():
    return dict(HOSTILE)


@pytest.fixture
def hostile(summary, hostile_texts):
    """The summary with hostile text in every place a model or a user can put text."""
    method = summary["methods"]["sppo"]
    method["examples"] = [
        {
            "prompt": f"prompt {text}",
            "before": f"before {text}",
            "after": f"after {text}",
            "win_prob": 0.8,
            "attributes": {f"attribute {text}": 1.0},
        }
        for text in hostile_texts.values()
    ]
    method["title"] = "_$\\frac{" + hostile_texts["script"] + hostile_texts["controls"]
    method["paper"] = "javascript:alert(1)"
    method["final"]["attributes"] = {
        f"{key} {text}": {"win_rate": 0.5, "low": 0.4, "high": 0.6}
        for key, text in hostile_texts.items()
    }
    summary["oracle"]["name"] = hostile_texts["image"]
    for item, text in zip(summary["oracle"]["attributes"], hostile_texts.values(), strict=False):
        item["name"] = item["description"] = text
    summary["model"] = hostile_texts["comment"] + hostile_texts["bidi"]
    summary["config"] = {text: text for text in hostile_texts.values()}
    summary["environment"] = {"x": hostile_texts["surrogate"]}
    return summary


@pytest.fixture(scope="session")
def rendered():
    """Parsed pages by summary, since drawing the figures takes most of a second."""
    cache = {}

    def render(summary):
        key = json.dumps(summary)
        if key not in cache:
            cache[key] = parse(report_html(summary))
        return cache[key]

    return render
