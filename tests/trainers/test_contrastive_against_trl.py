"""DPO, IPO and hard SPPO beside TRL's: the same model, tokenizer and batch, loss and gradients."""

import copy
import warnings

import pytest
import torch

from equilign.losses import log_normaliser, mirror_regression_loss
from equilign.rollout import completion_logps
from equilign.trainers.contrastive import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from tests.enumerable import END, tiny_model, tiny_tokenizer

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

ROWS = [
    {"prompt": "a b", "chosen": " a b b a", "rejected": " b"},
    {"prompt": "b a", "chosen": " b", "rejected": " a a b"},
    {"prompt": "a a b", "chosen": " a", "rejected": " b a"},
]
BETA = 0.3
CPU = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 0}


def models():
    """The policy, and a reference that is another model: margins are not zero."""
    policy = tiny_model(seed=3, spread=0.4, dtype=torch.float32)
    reference = tiny_model(seed=5, spread=0.4, dtype=torch.float32)
    return policy, reference


def theirs(tmp_path, loss_type, rows=ROWS, **options):
    """TRL's loss and gradients, and the rows as it tokenised them."""
    with warnings.catch_warnings():  # what TRL does with transformers is not ours
        warnings.simplefilter("ignore")
        return _theirs(tmp_path, loss_type, rows, **options)


def _theirs(tmp_path, loss_type, data, **options):
    policy, reference = models()
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"), loss_type=loss_type, beta=BETA, bf16=False,
        gradient_checkpointing=False, per_device_train_batch_size=len(data), report_to="none",
        max_length=None, **CPU, **options,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=args,
        train_dataset=datasets.Dataset.from_list(data),
        processing_class=tiny_tokenizer(),
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(data))])
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    rows = []
    for ids, attention, answer in zip(
        batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
    ):
        kept = ids[attention.bool()].tolist()
        rows.append((tuple(kept), int(answer.sum())))
    metrics = {k: v[0] for k, v in trainer._metrics["train"].items()}
    return loss.item(), gradients(trainer.model), rows, metrics


def ours(tmp_path, cls, config, data=ROWS, **options):
    """Our loss and gradients of the same pairs, and the tokens."""
    policy, reference = models()
    args = config(output_dir=str(tmp_path / "ours"), beta=BETA, report_to="none", **CPU, **options)
    trainer = cls(copy.deepcopy(reference), args, data, None, tiny_tokenizer())
    trainer.start_round(0)
    rows = trainer.play_chunk(0, 0, list(range(len(data))))
    loss, metrics = trainer.batch_loss(policy, rows)
    loss.backward()
    seen = [
        (tuple(row["prompt_ids"] + row["completion_ids"][side]), len(row["completion_ids"][side]))
        for side in (0, 1)
        for row in rows
    ]
    return loss.item(), gradients(policy), seen, metrics


def gradients(model):
    return {n.removeprefix("module."): p.grad.clone() for n, p in model.named_parameters()}


def compare(one, other, *, equal=True):
    (loss, grads, rows, metrics), (loss2, grads2, rows2, metrics2) = one, other
    assert rows == rows2, "the same tokens, end tokens included"
    assert all(ids[-1] == END for ids, _ in rows)
    close = loss == pytest.approx(loss2, rel=1e-5)
    assert close == equal
    assert grads.keys() == grads2.keys()
    largest = max(float(g.abs().max()) for g in grads2.values())
    assert largest > 1e-4
    far = max(float((grads[n] - grads2[n]).abs().max()) for n in grads)
    assert (far <= 1e-5 * max(largest, 1.0)) == equal
    for name in (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    ):
        assert metrics[name] == pytest.approx(metrics2[name], rel=1e-4, abs=1e-5)


def test_dpo(tmp_path):
    one = ours(tmp_path, DPOTrainer, DPOConfig)
    compare(one, theirs(tmp_path, "sigmoid"))


def test_length_normalised_dpo_is_sigmoid_norm(tmp_path):
    one = ours(tmp_path, DPOTrainer, DPOConfig, length_normalised=True)
    compare(one, theirs(tmp_path, "sigmoid_norm"))
    compare(one, theirs(tmp_path, "sigmoid"), equal=False)


def test_length_normalised_ipo_is_trls_ipo_and_the_sum_is_not(tmp_path):
    """The known difference: TRL divides log-ratios by the answers' tokens."""
    their_ipo = theirs(tmp_path, "ipo")
    compare(ours(tmp_path, IPOTrainer, IPOConfig, length_normalised=True), their_ipo)
    compare(ours(tmp_path, IPOTrainer, IPOConfig), their_ipo, equal=False)


def test_label_smoothing(tmp_path):
    """TRL's `sigmoid` ignores it. Its `aot` sorts the batch's log-ratios, which for a batch of
    one is nothing, and smooths labels as we do; `robust` is another loss."""
    one = ours(tmp_path, DPOTrainer, DPOConfig, ROWS[:1], label_smoothing=0.2)
    compare(one, theirs(tmp_path, "aot", ROWS[:1], label_smoothing=0.2))
    plain = ours(tmp_path / "b", DPOTrainer, DPOConfig)
    compare(plain, theirs(tmp_path, "sigmoid", label_smoothing=0.2))
    smooth = ours(tmp_path / "c", DPOTrainer, DPOConfig, label_smoothing=0.2)
    compare(smooth, theirs(tmp_path, "sigmoid", label_smoothing=0.2), equal=False)
    compare(smooth, theirs(tmp_path, "robust", label_smoothing=0.2), equal=False)


def test_hard_sppo(tmp_path):
    """The mirror regression with the paper's constant and win rates 1 and 0; ``eta = 1 / beta``."""
    loss, grads, rows, _ = theirs(tmp_path, "sppo_hard")
    policy, reference = models()
    args = DPOConfig(output_dir=str(tmp_path / "ours"), beta=BETA, report_to="none", **CPU)
    trainer = DPOTrainer(copy.deepcopy(reference), args, ROWS, None, tiny_tokenizer())
    trainer.start_round(0)
    played = trainer.play_chunk(0, 0, [0, 1, 2])
    answers = [tuple(r["completion_ids"][side]) for r in played for side in (0, 1)]
    prompts = [tuple(r["prompt_ids"]) for r in played for _ in (0, 1)]
    logps = completion_logps(policy, prompts, answers, pad_id=END).view(3, 2)
    anchor = logps.new_tensor([r["logps"]["reference"] for r in played])
    payoff = logps.new_tensor([[1.0, 0.0]] * 3)
    eta = 1.0 / BETA
    log_z = log_normaliser(payoff, torch.full_like(payoff, 0.5), eta=eta, kind="paper")
    mine = mirror_regression_loss(logps, anchor, payoff, log_z, eta=eta).sum(dim=1).mean()
    mine.backward()
    assert mine.item() == pytest.approx(loss, rel=1e-5)
    largest = max(float(g.abs().max()) for g in grads.values())
    for name, gradient in gradients(policy).items():
        assert float((gradient - grads[name]).abs().max()) <= 1e-5 * largest
    assert len(rows) == 6


def test_a_soft_label_is_the_mixture_of_two_hard_ones(tmp_path):
    """What TRL has no column for: its loss of the pair, and of the pair turned round."""
    turned = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in ROWS]
    soft = [{**r, "chosen_prob": 0.8} for r in ROWS]
    loss, grads, _, _ = ours(tmp_path, DPOTrainer, DPOConfig, soft)
    (there, there_grads, *_), (back, back_grads, *_) = (
        theirs(tmp_path / name, "sigmoid", rows) for name, rows in (("a", ROWS), ("b", turned))
    )
    assert loss == pytest.approx(0.8 * there + 0.2 * back, rel=1e-5)
    largest = max(float(g.abs().max()) for g in there_grads.values())
    for name, gradient in grads.items():
        mixed = 0.8 * there_grads[name] + 0.2 * back_grads[name]
        assert float((gradient - mixed).abs().max()) <= 1e-5 * largest
