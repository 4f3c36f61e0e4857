"""Make restaurant_pairs.jsonl: the shipped model's own answers, judged by the restaurant panel.

Best against worst of five answers to each of the first 136 shipped prompts, with the panel's win
probability as ``chosen_prob``. Offline DPO and IPO learn from it in these examples. Takes about a
minute on two cores:

    python recipes/train/make_pairs.py
"""

from pathlib import Path

from equilign.experiments.demo_pairs import judged_pairs
from equilign.models import load_model, load_tokenizer
from equilign.rollout import SamplingConfig
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel

PROMPTS = 136


def main() -> None:
    path = Path(__file__).with_name("restaurant_pairs.jsonl")
    path.unlink(missing_ok=True)
    rows = judged_pairs(
        path,
        load_model("shipped"),
        load_tokenizer("shipped"),
        restaurant_panel(),
        restaurant_prompts("align")[:PROMPTS],
        SamplingConfig(max_new_tokens=80, batch_size=160),
        seed=0,
    )
    print(f"{len(rows)} pairs in {path}")


if __name__ == "__main__":
    main()
