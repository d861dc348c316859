"""What the numbers say, in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from diffexp.report.metrics import Metric
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean, paired_difference
from diffexp.report.summary import Summary
from diffexp.runs import Run

#: A sample metric this many times that of the best row, and of the floor, is called a failure.
MANY_TIMES = 5.0

#: A run that says "running" and has not been heard of for so long is pointed out.
SILENT = timedelta(minutes=30)


@dataclass(frozen=True)
class Winner:
    """The best row in one metric, and the next.

    Attributes:
        difference: Best minus next, paired by seed.
    """

    metric: Metric
    best: Row
    next: Row
    value: float
    next_value: float
    difference: Mean | None

    @property
    def certain(self) -> bool:
        return self.difference is not None and self.difference.excludes_zero


def number(value: float) -> str:
    """Four significant digits."""
    return _signed(f"{value:.4g}")


def bounds(mean: Mean) -> str:
    """ "[0.0094, 0.0151]", to two digits of the interval's half width; "n = 1" for one seed."""
    if mean.low is None or mean.high is None:
        return "n = 1"
    half = mean.high - mean.mean
    places = 1 - math.floor(math.log10(half)) if half > 0 else 4
    if not 0 <= places <= 5:
        return f"[{_signed(f'{mean.low:.4g}')}, {_signed(f'{mean.high:.4g}')}]"
    return f"[{_signed(f'{mean.low:.{places}f}')}, {_signed(f'{mean.high:.{places}f}')}]"


def interval(mean: Mean) -> str:
    """ "0.012 [0.009, 0.015]", or "0.012 (n = 1)"."""
    return f"{number(mean.mean)} (n = 1)" if mean.low is None else f"{number(mean.mean)} {bounds(mean)}"


def _signed(digits: str) -> str:
    """A true minus sign, but not within an exponent."""
    return digits.replace("-", "\N{MINUS SIGN}", 1) if digits.startswith("-") else digits


def question(summary: Summary) -> str:
    """The study's question, from what varies."""
    others = [key for key in summary.keys if key != "target"]
    with_others = f", and what do {_and(others)} change" if others else ""
    if "target" in summary.keys:
        return f"What should the network be asked to predict{with_others}?"
    if others:
        return f"What does {_and(others)} change, for target {summary.common.get('target', '')}?".replace(
            ", for target ?", "?"
        )
    return f"How well does one configuration ({summary.rows[0].label}) do?"


def progress(summary: Summary) -> str:
    """ "18 runs: 15 done, 2 running, 1 diverged"."""
    order = ("done", "running", "starting", "interrupted", "diverged", "failed", "unreadable")
    counts = [f"{summary.statuses[status]} {status}" for status in order if summary.statuses[status]]
    return f"{_count(len(summary.runs), 'run')}: {', '.join(counts)}"


def ranked(summary: Summary, metric: Metric) -> list[Row]:
    """The rows that may be ranked against each other, best first.

    A row with fewer seeds than others may lead by the luck of its seeds, so only rows with as many seeds as
    the second-richest row are ranked, and by the seeds that all of these share.
    """
    values = {row.name: row.values(metric.key) for row in summary.rows}
    counts = sorted((len(seeds) for seeds in values.values() if seeds), reverse=True)
    if len(counts) < 2:
        return []
    rows = [row for row in summary.rows if len(values[row.name]) >= counts[1]]
    shared = set(values[rows[0].name]).intersection(*(values[row.name] for row in rows))
    sign = -1 if metric.higher_is_better else 1

    def score(row: Row) -> float:
        seeds = shared or set(values[row.name])
        return sign * sum(values[row.name][seed] for seed in seeds) / len(seeds)

    return sorted(rows, key=score)


def unranked(summary: Summary) -> list[str]:
    """A sentence about the rows that have numbers but too few seeds to be ranked."""
    left_out = {
        row.label: len(values)
        for metric in summary.metrics
        if (rows := ranked(summary, metric))
        for row in summary.rows
        if (values := row.values(metric.key)) and row not in rows
    }
    if not left_out:
        return []
    listed = _and([f"{label} ({_count(n, 'seed')})" for label, n in left_out.items()])
    return [f"Not ranked, for having fewer finished seeds than the others: {listed}."]


def winners(summary: Summary) -> list[Winner]:
    """The best row in each metric, where at least two rows can be ranked."""
    found: list[Winner] = []
    for metric in summary.metrics:
        rows = ranked(summary, metric)
        if len(rows) > 1:
            values = [summary.cell(row, metric).value for row in rows[:2]]
            best, second = (value.mean if value else math.nan for value in values)
            difference = paired_difference(rows[0].values(metric.key), rows[1].values(metric.key))
            found.append(Winner(metric, rows[0], rows[1], best, second, difference))
    return found


def headline(summary: Summary) -> str:
    """The verdict in one or two sentences."""
    summary = summary.best_rate or summary
    found = winners(summary)
    if not found:
        if summary.statuses["done"] == 0:
            return "No run is done yet, so there is no verdict."
        return "Only one row has finished runs: there is nothing to compare it with yet."
    sentence = "; ".join(f"{label} {what}" for label, what in _praise(found)) + "."
    rate = " Each row is taken at its best learning rate." if summary.chosen_by else ""
    if summary.most_seeds <= 1:
        return (
            f"With one seed, {sentence}{rate} One seed gives no confidence interval: these are "
            "observations, and "
            "another seed may order close rows otherwise."
        )
    certain = [winner for winner in found if winner.certain]
    if len(certain) == len(found):
        told = "In each of these the lead over the next row holds at the 95 % level, paired by seed."
    elif certain:
        names = _and([_short_title(winner.metric) for winner in certain])
        told = (
            f"The lead over the next row holds at the 95 % level, paired by seed, in {names} only; the rest are ties."
        )
    else:
        told = "No lead over the next row holds at the 95 % level, paired by seed: call them ties."
    return f"{sentence}{rate} {told}"


def lead(winner: Winner) -> str:
    """ "3.4 % below", the best row's distance from the next; an absolute one where a share means nothing."""
    value, other = winner.value, winner.next_value
    where = "above" if winner.metric.higher_is_better else "below"
    gap = abs(other - value)
    return f"{100 * gap / abs(other):.2g} % {where}" if value * other > 0 else f"{number(gap)} {where}"


def confidence(winner: Winner) -> str:
    """What the paired difference between the best row and the next allows to say."""
    difference = winner.difference
    if difference is None:
        return "no seed in common, so no paired difference"
    if difference.low is None:
        return "one seed: no confidence interval"
    told = "a clear lead" if winner.certain else "a tie so far"
    return f"paired difference {interval(difference)} over {difference.n} seeds: {told}"


def failures(summary: Summary, now: datetime | None = None) -> list[str]:
    """What went wrong, row by row, in sentences."""
    best = {
        metric.key: min((value.mean for row in summary.rows if (value := summary.cell(row, metric).value)), default=0.0)
        for metric in summary.metrics
        if metric.of_samples and not metric.higher_is_better
    }
    sentences: list[str] = []
    for row in summary.rows:
        sentences += _row_failures(summary, row, best)
        sentences += [_silence(row, run, now or datetime.now(UTC)) for run in row.runs]
    lengths = {run.number("images_seen") for row in summary.rows for run in row.done} - {None}
    if len(lengths) > 1:
        shown = _and([f"{length:,.0f}" for length in sorted(length for length in lengths if length is not None)])
        sentences.append(
            f"Finished runs have seen different numbers of images ({shown}): their numbers are not comparable."
        )
    return [sentence for sentence in sentences if sentence]


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
    return sentences


def _row_failures(summary: Summary, row: Row, best: Mapping[str, float]) -> list[str]:
    counts, total = row.statuses, len(row.runs)
    sentences: list[str] = []
    if counts["diverged"]:
        kept = "its means are over the survivors" if row.done else "it has no means"
        sentences.append(
            f"{row.label} diverged in {counts['diverged']} of {_count(total, 'run')} "
            f"(the loss stopped being finite); {kept}."
        )
    if counts["failed"]:
        errors = [run.text("error") for run in row.runs if run.status == "failed" and run.text("error")]
        why = f": {errors[0][:300].rstrip('.')}" if errors else ""
        sentences.append(f"{row.label} failed in {counts['failed']} of {_count(total, 'run')}{why}.")
    loss, zero = summary.cell(row, "val/loss").value, summary.cell(row, "val/zero_loss").value
    if loss and zero and loss.mean >= zero.mean:
        sentences.append(
            f"{row.label} learned nothing: its loss {number(loss.mean)} on held-out images is no "
            "lower than that of "
            f"predicting zero ({number(zero.mean)})."
        )
    belief = summary.cell(row, "val/belief_eps").value
    if belief and belief.mean >= 1:
        sentences.append(
            f"{row.label} failed as a belief: its error in eps is {number(belief.mean)}, no better than answering "
            "eps = 0, which costs about 1."
        )
    missing = [m.title for m in summary.metrics if m.of_samples and not summary.cell(row, m).value]
    if row.done and missing and row.choices.get("metric") != "none":
        sentences.append(
            f"{row.label} has no {_and(missing)} though it is done: its samples were not finite, or were not measured."
        )
    for metric in summary.metrics:
        cell = summary.cell(row, metric)
        reference = max(best.get(metric.key, 0.0), cell.floor or 0.0)
        if metric.key in best and cell.value and reference > 0 and cell.value.mean > MANY_TIMES * reference:
            floor = f", and {cell.value.mean / cell.floor:.0f} times the floor" if cell.floor and cell.floor > 0 else ""
            times = (
                f"{cell.value.mean / best[metric.key]:.0f} times that of the best row"
                if best[metric.key] > 0
                else "far from the best row's"
            )
            sentences.append(
                f"{row.label} failed as a sampler: {metric.title} is {number(cell.value.mean)}, {times}{floor}."
            )
            break
    return sentences


def _silence(row: Row, run: Run, now: datetime) -> str:
    if run.status != "running":
        return ""
    try:
        silent = now - datetime.fromisoformat(run.text("updated"))
    except (ValueError, TypeError):
        return ""
    if silent < SILENT:
        return ""
    hours = silent.total_seconds() / 3600
    ago = f"{hours:.0f} hours" if hours >= 2 else f"{silent.total_seconds() / 60:.0f} minutes"
    return (
        f"{row.label}, seed {run.seed} says it is running, but has written nothing for {ago}: it was probably stopped."
    )


def _praise(found: Sequence[Winner]) -> list[tuple[str, str]]:
    """By row: "has the lowest belief error in eps and v units, and the best bits/dim"."""
    groups: dict[str, list[Winner]] = {}
    for winner in found:
        groups.setdefault(winner.best.label, []).append(winner)
    praise: list[tuple[str, str]] = []
    for label, won in groups.items():
        units = [winner.metric.currency for winner in won if winner.metric.currency]
        others = [winner.metric.title for winner in won if not winner.metric.currency]
        parts = [f"the lowest belief error in {_and(units)} units"] if units else []
        parts += [f"the best {_and(others)}"] if others else []
        praise.append((label, f"has {', and '.join(parts)}"))
    return praise


def _short_title(metric: Metric) -> str:
    return f"{metric.currency} units" if metric.currency else metric.title


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
