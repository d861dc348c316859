"""What a reader must know before the numbers: learning rate, length, sampler, averaged weights, the classifier."""

from collections.abc import Sequence

from diffexp.report.format import listed, number
from diffexp.report.metrics import CURRENCIES
from diffexp.report.rows import RATE, followers, settings
from diffexp.report.summary import Summary
from diffexp.runs.study import Run


def facts(summary: Summary) -> list[str]:
    """Short sentences; what is not recorded is left out."""
    told = [*_rate(summary), *_length(summary), *_weights(summary), *_classifier(summary), *_optimum(summary)]
    for choice, keys in followers(summary.rows).items():
        told.append(f"Varies with {choice} and is not named apart from it: {listed(keys, 8)}.")
    return told


def sampled_with(summary: Summary) -> str:
    """ "ddim, 50 steps", where it is the same for all rows; else ""."""
    name, steps = summary.common.get("sampler", ""), _values(summary, "sampler.steps")
    return f"{name}, {steps[0]} steps" if name and len(steps) == 1 else name


def choosing(summary: Summary) -> str:
    """What the choice of a learning rate rests on."""
    return (
        f"Of the rates tried, each row's best by mean {summary.chosen_by or ''}, chosen on these same runs, which "
        "flatters rows with more rates tried or more scatter. Another metric may choose other rates and so another "
        "order: see --select."
    )


def _rate(summary: Summary) -> list[str]:
    rates, rows = _values(summary, RATE), "all rows"
    if "target" in summary.keys:
        rows = "all targets" if summary.keys == ("target",) else "all targets and settings"
    if len(rates) != 1 or len(summary.rows) < 2:
        return [f"Learning rates: {listed(rates, 8)}."] if len(rates) > 1 else []
    return [f"One learning rate, {rates[0]}, for {rows}: another may change the order (experiment=fair_lr sweeps it)."]


def _length(summary: Summary) -> list[str]:
    """What the runs that are compared have seen; where none is done, how far they are."""
    done = [run for row in summary.rows for run in row.done]
    seen, goals = _counts(done or summary.runs, "images_seen"), _counts(summary.runs, "max_images")
    if not seen:
        return []
    if not done:
        far = f"{seen[0]:,.0f} to {seen[-1]:,.0f}" if len(seen) > 1 else f"{seen[0]:,.0f}"
        return [f"Trained on {far}{f' of {_shown(goals)}' if goals and seen[-1] <= goals[0] else ''} images."]
    which = "The run that is done was trained" if len(done) == 1 else "The runs that are done were trained"
    which = "Trained" if len(done) == len(summary.runs) else which
    return [f"{which} on {_shown(seen)} images{' each' if len(done) > 1 else ''}."]


def _counts(runs: Sequence[Run], key: str) -> list[float]:
    return sorted({count for run in runs if (count := run.number(key)) is not None})


def _shown(counts: Sequence[float]) -> str:
    return listed([f"{count:,.0f}" for count in counts], 4)


def _weights(summary: Summary) -> list[str]:
    decays = _values(summary, "training.ema_decay")
    how = f" (EMA, decay {decays[0]})" if len(decays) == 1 else " (EMA)"
    sampler = sampled_with(summary)
    by = f"; samples by {sampler}" if sampler and any(metric.of_samples for metric in summary.metrics) else ""
    return [f"All validation and sampling uses the averaged weights{how}{by}."] if decays or by else []


def _classifier(summary: Summary) -> list[str]:
    found = {
        f"{100 * value:.3g} %"
        for run in summary.runs
        for key, value in run.final.items()
        if key.endswith("/accuracy") and key.count("/") == 2
    }
    shown = listed(sorted(found), 4)
    return [f"The classifier behind the distances names {shown} of the held-out images rightly."] if found else []


def _optimum(summary: Summary) -> list[str]:
    """What nobody can do better, where the data's density is known."""
    known = [run.optimum for run in summary.runs if run.optimum]
    if not known or any(other != known[0] for other in known):
        return []
    errors = [f"{number(known[0][key])} in {unit}" for unit in CURRENCIES if (key := f"val/belief_{unit}") in known[0]]
    bits = known[0].get("val/bits_per_dim")
    also = f", and {number(bits)} bits/dim" if bits is not None else ""
    return [f"The data's density is known: the best possible network has a belief error of {listed(errors)}{also}."]


def _values(summary: Summary, key: str) -> list[str]:
    values = [table[key] for row in summary.rows if key in (table := settings(row.runs))]
    return list(dict.fromkeys(values))
