"""Notes beside the numbers, in sentences: facts about the runs, failures, limits of the metrics."""

from collections.abc import Iterator, Mapping, Sequence

from diffexp.report.format import count, counted, listed, number, share, spread
from diffexp.report.metrics import Metric
from diffexp.report.rows import RATE, Row, followers, settings
from diffexp.report.summary import Summary
from diffexp.runs.evaluations import unreadable_evaluations
from diffexp.runs.metric_keys import CURRENCIES
from diffexp.runs.state_names import trouble
from diffexp.runs.study import Run

POOR_SAMPLES = 5.0
"""A sample metric more than this many times that of the best row, and of the floor, is called poor."""
NEAR_CHANCE = 0.5
"""A classifier that has gone less than this part of the way from guessing to no error makes poor features."""
FALLING = 0.03
"""A fall of the eps-error over the last tenth of training that is worth a warning.

An error that goes as a power of the images seen and falls so would be a fifth lower after twice the training.
"""


def facts(summary: Summary) -> list[str]:
    """Learning rate, length, sampler, averaged weights, the classifier; what is not recorded is left out."""
    found = [*_rate(summary), *_length(summary), *_weights(summary), *_classifier(summary), *_optimum(summary)]
    for choice, keys in followers(summary.rows).items():
        found.append(f"Varies with {choice} and is not shown separately: {listed(keys, 8)}.")
    return found


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


def failures(summary: Summary) -> list[str]:
    """What went wrong, in sentences."""
    return [
        *(sentence for row in summary.rows for sentence in _row_failures(summary, row)),
        *_poor_samples(summary),
        *_no_better_than_zero(summary),
        *_falling(summary),
        *_lengths(summary),
        *_unreadable(summary),
    ]


def cautions(summary: Summary) -> list[str]:
    """What limits the metrics themselves."""
    sentences: list[str] = []
    finals = [run.final for row in summary.rows for run in row.done]
    for metric in summary.metrics:
        counts = [final[metric.floor_count] for final in finals if metric.floor_count in final]
        if counts:
            scatters = "scatters more" if metric.family == "kid" else "is too high: good samples may fall below it"
            sentences.append(
                f"The floor of {metric.title} rests on {count(min(counts))} held-out images, fewer than there are "
                f"samples, and therefore {scatters}."
            )
        if any(final.get(metric.unreliable) for final in finals):
            sentences.append(
                f"{metric.title} is unreliable here: it rests on no more images than its features have dimensions."
            )
    return [*sentences, *_poor_features(finals), *_undirected(summary)]


def _rate(summary: Summary) -> list[str]:
    rates, rows = _values(summary, RATE), "all rows"
    if "target" in summary.keys:
        rows = "all targets" if summary.keys == ("target",) else "all targets and settings"
    if len(rates) != 1 or len(summary.rows) < 2:
        return [f"Learning rates: {listed(rates, 8)}."] if len(rates) > 1 else []
    return [f"One learning rate, {rates[0]}, for {rows}: another may change the order (experiment=fair_lr sweeps it)."]


def _length(summary: Summary) -> list[str]:
    """How many images the runs that are compared have seen; where none is done, how far they are."""
    done = [run for row in summary.rows for run in row.done]
    seen, goals = _counts(done or summary.runs, "images_seen"), _counts(summary.runs, "max_images")
    if not seen:
        return []
    if not done:
        far = f"{count(seen[0])} to {count(seen[-1])}" if len(seen) > 1 else count(seen[0])
        return [f"Trained on {far}{f' of {_shown(goals)}' if goals and seen[-1] <= goals[0] else ''} images."]
    which = "The run that is done was trained" if len(done) == 1 else "The runs that are done were trained"
    which = "Trained" if len(done) == len(summary.runs) else which
    return [f"{which} on {_shown(seen)} images{' each' if len(done) > 1 else ''}."]


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
    return [f"The classifier whose features the distances use is {shown} accurate on held-out images."] if found else []


def _optimum(summary: Summary) -> list[str]:
    """The irreducible error, where the data's density is known."""
    known = [run.optimum for run in summary.runs if run.optimum]
    if not known or any(other != known[0] for other in known):
        return []
    errors = [f"{number(known[0][key])} in {unit}" for unit in CURRENCIES if (key := f"val/belief_{unit}") in known[0]]
    bits = known[0].get("val/bits_per_dim")
    also = f", and {number(bits)} bits/dim" if bits is not None else ""
    return [f"The data's density is known: the optimal prediction has an error of {listed(errors)}{also}."]


def _row_failures(summary: Summary, row: Row) -> Iterator[str]:
    """Runs that diverged or failed, a loss that never fell, metrics that are missing."""
    diverged, failed, total = row.states.count("diverged"), row.states.count("failed"), len(row.runs)
    if diverged:
        kept = "its means are over the others" if row.done else "it has no means"
        yield f"{row.label} diverged in {diverged} of {counted(total, 'run')} (the loss stopped being finite); {kept}."
    if failed:
        first = next(run for run, state in zip(row.runs, row.states, strict=True) if state == "failed")
        reason = (trouble("failed", first.text("error")) or "")[:300].rstrip(".")
        yield f"{row.label} failed in {failed} of {counted(total, 'run')}: {reason}."
    loss, zero = summary.cell(row, "val/loss").value, summary.cell(row, "val/zero_loss").value
    if loss and zero and loss.mean >= zero.mean:
        yield (
            f"{row.label} learned nothing: its loss on held-out images ({number(loss.mean)}) is no lower than that of "
            f"the zero-prediction baseline ({number(zero.mean)})."
        )
    missing = [m.title for m in summary.metrics if m.family and m.of_samples and not summary.cell(row, m).value]
    if row.done and missing and row.choices.get("metric") != "none":
        yield f"{row.label} is done but has no {listed(missing)}: its samples were not finite, or were not measured."


def _poor_samples(summary: Summary) -> Iterator[str]:
    """One sentence for each metric; a row is named in the first in which it is far from the best row and the floor."""
    named: set[str] = set()
    for metric in summary.metrics:
        cells = [(row, summary.cell(row, metric)) for row in summary.rows]
        means = [cell.value.mean for _, cell in cells if cell.value]
        if not metric.of_samples or metric.higher_is_better is not False or not means:
            continue
        best = min(means)
        limits = [POOR_SAMPLES * max(best, cell.floor or 0.0) for _, cell in cells]
        poor = [
            (row, cell.value.mean, cell.floor)
            for (row, cell), most in zip(cells, limits, strict=True)
            if row.name not in named and cell.value and cell.value.mean > most > 0
        ]
        if poor:
            named |= {row.name for row, _, _ in poor}
            values = listed([f"{number(value)} for {row.phrase}" for row, value, _ in poor])
            floors = spread([floor for _, _, floor in poor if floor is not None])
            yield (
                f"Poor samples: {metric.title} is {values}, more than {POOR_SAMPLES:g} times the best row's "
                f"{number(best)}{f' and the floor of {floors}' if floors else ''}."
            )


def _no_better_than_zero(summary: Summary) -> list[str]:
    """One sentence for all rows whose prediction is worth no more than none."""
    errors = [(row, value.mean) for row in summary.rows if (value := summary.cell(row, "val/belief_eps").value)]
    rows = [f"{row.phrase}: {number(error)}" for row, error in errors if error >= 1]
    if not rows:
        return []
    return [
        f"No better, in eps units, than predicting eps = 0, which costs about 1: {listed(rows, most=8)}. "
        "These rows are barely trained or failed, and their order means little."
    ]


def _falling(summary: Summary) -> list[str]:
    """One sentence for all rows that were still learning fast when they ended."""
    falls = [(row, fall) for row in summary.rows if (fall := summary.fall(row)) is not None and fall > FALLING]
    if not falls:
        return []
    names = listed([f"{row.phrase} ({share(fall)})" for row, fall in falls], most=8)
    return [
        "The eps-error was still falling when training ended (by how much over the last tenth of training): "
        f"{names}. The order may change with longer training."
    ]


def _lengths(summary: Summary) -> list[str]:
    lengths = _counts([run for row in summary.rows for run in row.done], "images_seen")
    if len(lengths) < 2:
        return []
    shown = listed([count(length) for length in lengths])
    return [f"Finished runs have seen different numbers of images ({shown}): their numbers are not comparable."]


def _poor_features(finals: Sequence[Mapping[str, float]]) -> list[str]:
    """Features of a classifier that hardly distinguishes the classes do not recognise good samples either."""
    for final in finals:
        for key, accuracy in final.items():
            name, _, last = key.rpartition("/")
            chance = final.get(f"{name}/chance") if last == "accuracy" else None
            if chance is not None and accuracy < chance + NEAR_CHANCE * (1 - chance):
                return [
                    f"The classifier whose features {Metric(name).title} uses is only {100 * accuracy:.3g} % accurate "
                    f"on held-out images ({100 * chance:.2g} % by guessing): distances on its features mean little."
                ]
    return []


def _undirected(summary: Summary) -> list[str]:
    """How to rank by a metric of one's own."""
    keys = [metric.key for metric in summary.metrics if metric.higher_is_better is None]
    if not keys:
        return []
    return [
        f"Rows are not ranked by {listed(keys, 8)}: it is not known whether higher or lower is better. Declare it with "
        f"diffexp report --higher {keys[0]} or --lower {keys[0]}."
    ]


def _values(summary: Summary, key: str) -> list[str]:
    values = [table[key] for row in summary.rows if key in (table := settings(row.runs))]
    return list(dict.fromkeys(values))


def _counts(runs: Sequence[Run], key: str) -> list[float]:
    return sorted({number for run in runs if (number := run.number(key)) is not None})


def _shown(counts: Sequence[float]) -> str:
    return listed([count(each) for each in counts], 4)


def _unreadable(summary: Summary) -> list[str]:
    names = [
        f"{run.name}/{run.path.name}/{name}"
        for row in summary.rows
        for run in row.runs
        for name in unreadable_evaluations(run)
    ]
    return [f"Evaluations that cannot be read are left out: {listed(names, 8)}."] if names else []
