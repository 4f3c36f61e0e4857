"""Numbers and findings in plain words."""

from equilign.reports.run import Estimate, Method, Run

NBSP = "\u00a0"
DASH = "–"
MISSING = "not recorded"


def percent(share: float) -> str:
    """Write a share as a percentage; one decimal where rounding would claim exactly 50."""
    whole = f"{100 * share:.0f}"
    if whole == "50" and share != 0.5:
        whole = f"{100 * share:.1f}"
    return f"{whole}{NBSP}%"


def interval(estimate: Estimate) -> str:
    """Write the bounds of an estimate as "58–68 %", or the empty string without bounds."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{percent(estimate.low).removesuffix(f'{NBSP}%')}{DASH}{percent(estimate.high)}"


def share(estimate: Estimate) -> str:
    """Write an estimate as "63 % (58–68 %)"."""
    if estimate.value is None:
        return DASH
    bounds = interval(estimate)
    return percent(estimate.value) + (f" ({bounds})" if bounds else "")


def decimal(value: float | None, digits: int = 1) -> str:
    """Write a number with a fixed number of decimals, a dash for None."""
    return DASH if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Write a time span in the units a person would use."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun: "1 prompt", "1,024 prompts"."""
    return f"{number:,}{NBSP}{noun}" + ("" if number == 1 else "s")


def _preferred(method: Method, run: Run) -> str:
    if method.win.value is None:
        return f"No win rate was recorded for {method.title}."
    rounds = f"After {plural(len(method.rounds), 'round')} the" if method.rounds else "The"
    prompts = (
        ""
        if run.evaluation is None
        else f" on {plural(run.evaluation, 'prompt')} it was not trained on"
    )
    bounds = interval(method.win)
    return (
        f"{rounds} {method.title} model’s answer is preferred to the start model’s in "
        f"{percent(method.win.value)} of comparisons{prompts}"
        f"{f' (95{NBSP}% interval {bounds})' if bounds else ''}."
    )


def verdict(estimate: Estimate) -> str:
    """Classify a win rate: "better", "worse", "open" (interval contains 0.5) or "unknown"."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    if estimate.low > 0.5:
        return "better"
    return "worse" if estimate.high < 0.5 else "open"


def _judgement(method: Method) -> str:
    if method.win.value is None:
        return ""
    half = f"50{NBSP}%"
    return {
        "better": f"The whole interval lies above {half}, so chance in the choice of prompts is "
        "an unlikely explanation of the gain.",
        "open": f"The interval contains {half}: this run does not show that the trained model is "
        "better than the start model, nor that it is worse.",
        "worse": f"The whole interval lies below {half}: by the same judge that trained it, the "
        "model got worse than the start model.",
        "unknown": "No interval was recorded, so the number alone does not tell a real "
        "difference from chance.",
    }[verdict(method.win)]


def _movement(method: Method, run: Run) -> str:
    parts = []
    if method.kl is not None:
        digits = 1 if abs(method.kl) >= 1 else 2
        parts.append(
            f"It moved {method.kl:.{digits}f} nats away from the start model (the KL divergence "
            "per answer; an unchanged model has 0)."
        )
    if method.tokens is not None:
        before = f", against {run.start_tokens:.1f}" if run.start_tokens is not None else ""
        after = " before training" if before else ""
        parts.append(f"Its answers are {method.tokens:.1f} tokens long on average{before}{after}.")
    return " ".join(parts)


def method_summary(method: Method, run: Run) -> str:
    """Say in a few sentences what training did, as strongly as the interval allows."""
    sentences = (_preferred(method, run), _judgement(method), _movement(method, run))
    return " ".join(sentence for sentence in sentences if sentence)


def judge_note(run: Run) -> str:
    """Say who the judge is, since every win rate is relative to it."""
    name = f"the oracle “{run.oracle}”" if run.oracle else "the run’s oracle"
    size = f" ({plural(len(run.judges), 'attribute')})" if run.judges else ""
    return (
        f"“Preferred” is the verdict of {name}{size}, an automatic judge. "
        f"50{NBSP}% means as good as the start model; ties count one half."
    )


def cycle_summary(method: Method, run: Run) -> str:
    """Say how often the last measured round's comparisons ran in a circle."""
    measured = [item for item in method.rounds if item.cycles.share.value is not None]
    if not measured:
        return ""
    last = measured[-1]
    cycles = last.cycles
    found = percent(cycles.share.value or 0.0)
    bounds = interval(cycles.share)
    if cycles.with_cycle is not None and cycles.prompts is not None:
        shown = f"{cycles.with_cycle:,} of {plural(cycles.prompts, 'prompt')} ({found}"
        shown += f", 95{NBSP}% interval {bounds})" if bounds else ")"
    else:
        shown = f"{found} of prompts" + (f" (95{NBSP}% interval {bounds})" if bounds else "")
    among = f" among its {run.samples} sampled answers" if run.samples is not None else ""
    winner = ""
    if cycles.condorcet is not None:
        winner = f" On {percent(cycles.condorcet)} of prompts one answer beat all the others."
    return f"{method.title}, round {last.number}: {shown} had at least one cycle{among}.{winner}"
