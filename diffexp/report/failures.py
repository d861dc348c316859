"""What went wrong, and what limits the numbers, in sentences."""

from collections.abc import Mapping, Sequence

from diffexp.report.format import counted, listed, number, share
from diffexp.report.metrics import Metric
from diffexp.report.rows import Row
from diffexp.report.summary import Summary

MANY_TIMES = 5.0
"""A sample metric more than this many times that of the best row, and of the floor, is called a failure."""
NEAR_CHANCE = 0.5
"""A classifier that has gone less than this part of the way from guessing to no mistake makes poor features."""


def failures(summary: Summary) -> list[str]:
    """What went wrong, row by row, in sentences."""
    best = {
        metric.key: min((value.mean for row in summary.rows if (value := summary.cell(row, metric).value)), default=0.0)
        for metric in summary.metrics
        if metric.of_samples and not metric.higher_is_better
    }
    sentences: list[str] = []
    for row in summary.rows:
        sentences += _row_failures(summary, row, best)
    beliefs = [(row, value.mean) for row in summary.rows if (value := summary.cell(row, "val/belief_eps").value)]
    sentences += _no_better_than_zero([(row, error) for row, error in beliefs if error >= 1])
    sentences += _falling(summary)
    lengths = {run.number("images_seen") for row in summary.rows for run in row.done} - {None}
    if len(lengths) > 1:
        shown = listed([f"{length:,.0f}" for length in sorted(length for length in lengths if length is not None)])
        sentences.append(
            f"Finished runs have seen different numbers of images ({shown}): their numbers are not comparable."
        )
    return sentences


def cautions(summary: Summary) -> list[str]:
    """What limits the metrics themselves."""
    sentences: list[str] = []
    finals = [run.final for row in summary.rows for run in row.done]
    for metric in summary.metrics:
        counts = [final[metric.floor_count] for final in finals if metric.floor_count in final]
        if counts:
            what = (
                "scatters more" if metric.family == "kid" else "is therefore too high: good samples may fall below it"
            )
            sentences.append(
                f"The floor of {metric.title} rests on {min(counts):,.0f} held-out images, fewer than there are "
                f"samples, and {what}."
            )
        if any(final.get(metric.unreliable) for final in finals):
            sentences.append(
                f"{metric.title} is unreliable here: it rests on no more images than its features have dimensions."
            )
    return [*sentences, *_poor_features(finals)]


def _poor_features(finals: Sequence[Mapping[str, float]]) -> list[str]:
    """A classifier that hardly knows the classes does not know good samples either."""
    for final in finals:
        for key, accuracy in final.items():
            name, _, last = key.rpartition("/")
            chance = final.get(f"{name}/chance") if last == "accuracy" else None
            if chance is not None and accuracy < chance + NEAR_CHANCE * (1 - chance):
                return [
                    f"The classifier whose features {Metric(name).title} uses names only {100 * accuracy:.3g} % of the "
                    f"held-out images rightly ({100 * chance:.2g} % by guessing): distances on its features say little."
                ]
    return []


def _row_failures(summary: Summary, row: Row, best: Mapping[str, float]) -> list[str]:
    diverged, failed, total = row.states.count("diverged"), row.states.count("failed"), len(row.runs)
    sentences: list[str] = []
    if diverged:
        kept = "its means are over the survivors" if row.done else "it has no means"
        sentences.append(
            f"{row.label} diverged in {diverged} of {counted(total, 'run')} (the loss stopped being finite); {kept}."
        )
    if failed:
        errors = [run.text("error") for run in row.runs if run.status == "failed" and run.text("error")]
        why = f": {errors[0][:300].rstrip('.')}" if errors else ""
        sentences.append(f"{row.label} failed in {failed} of {counted(total, 'run')}{why}.")
    loss, zero = summary.cell(row, "val/loss").value, summary.cell(row, "val/zero_loss").value
    if loss and zero and loss.mean >= zero.mean:
        sentences.append(
            f"{row.label} learned nothing: its loss {number(loss.mean)} on held-out images is no "
            "lower than that of "
            f"predicting zero ({number(zero.mean)})."
        )
    missing = [m.title for m in summary.metrics if m.of_samples and not summary.cell(row, m).value]
    if row.done and missing and row.choices.get("metric") != "none":
        sentences.append(
            f"{row.label} has no {listed(missing)} though it is done: its samples were not finite, or were not "
            "measured."
        )
    for metric in summary.metrics:
        cell = summary.cell(row, metric)
        reference = max(best.get(metric.key, 0.0), cell.floor or 0.0)
        if metric.key in best and cell.value and reference > 0 and cell.value.mean > MANY_TIMES * reference:
            sentences.append(
                f"{row.label} failed as a sampler: {metric.title} is {number(cell.value.mean)}"
                f"{_compared(row, metric, cell.value.mean, best[metric.key], cell.floor)}. The line for this warning "
                f"is {MANY_TIMES:g} times the best row's{' and the floor' if cell.floor else ''}."
            )
            break
    return sentences


def _compared(row: Row, metric: Metric, value: float, best: float, floor: float | None) -> str:
    """ ", 6 times the best row's 8 and 39 times the floor"; a floor of too few images is called too high."""
    parts = [f"{value / best:.0f} times the best row's {number(best)}"] if best > 0 else []
    if floor and floor > 0:
        high = ", which is itself too high" if any(metric.floor_count in run.final for run in row.done) else ""
        parts.append(f"{value / floor:.0f} times the floor{high}")
    return f", {listed(parts)}" if parts else ""


def _no_better_than_zero(rows: Sequence[tuple[Row, float]]) -> list[str]:
    """One sentence for all rows whose belief is worth no more than none."""
    if not rows:
        return []
    names = listed([f"{row.phrase}: {number(error)}" for row, error in rows], most=8)
    return [
        f"No better as a belief, in eps units, than answering eps = 0, which costs about 1: {names}. "
        "Barely trained, or failed; their order says little."
    ]


def _falling(summary: Summary) -> list[str]:
    """One sentence for all rows that were still learning fast when they ended."""
    falls = [(row, training.fall) for row in summary.rows
             if (training := summary.training.get(row.name)) and training.still_falling and training.fall]  # fmt: skip
    if not falls:
        return []
    names = listed([f"{row.phrase} ({share(fall)})" for row, fall in falls], most=8)
    return [
        "Still falling when training ended (eps-error, fall over the last tenth of training): "
        f"{names}. The order may change with longer training."
    ]
