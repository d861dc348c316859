"""Which row leads in a metric, which are not distinguishable from it, and which are clearly worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffexp.report.comparable import same_data
from diffexp.report.format import counted, listed
from diffexp.report.metrics import Metric
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean, holm, paired_difference
from diffexp.report.summary import Summary

EQUAL = 0.01
"""Relative leads below this are called equal, however certain; in bits/dim, leads of so many bits."""
EQUAL_FOR_ONE_SEED = 0.05
"""The same where one seed is all there is: another seed moves a row by that much."""


@dataclass(frozen=True)
class Ranking:
    """The rows in one metric, best first.

    Attributes:
        tied: Not distinguishable from the best: the paired difference does not exclude 0 after Holm's correction
            for all rows, or the lead is too small to matter.
        worse: Clearly worse; with one seed merely worse by `EQUAL_FOR_ONE_SEED` or more.
        values: Means by row name.
        differences: To the best, paired by seed; None without a seed in common.
    """

    metric: Metric
    best: Row
    tied: tuple[Row, ...]
    worse: tuple[Row, ...]
    values: Mapping[str, float]
    differences: Mapping[str, Mean | None]

    @property
    def leaders(self) -> tuple[Row, ...]:
        return self.best, *self.tied

    @property
    def seeds(self) -> int:
        """The least number of seeds that a comparison rests on."""
        return min((mean.n if mean else 0 for mean in self.differences.values()), default=0)

    def gap(self, row: Row) -> float | None:
        """How far behind the best, relative to it or in bits/dim; None where a share means nothing."""
        best, value = self.values[self.best.name], self.values[row.name]
        if self.metric.absolute:
            return abs(value - best)
        return abs(value - best) / abs(best) if best * value > 0 else 0.0 if best == value else None


def ranked(summary: Summary, metric: Metric) -> list[Row]:
    """The rows that may be ranked against each other, best first.

    A row with fewer seeds than others may lead by the luck of its seeds, so only rows with as many seeds as
    the second-richest row are ranked, and by the seeds that all of these share. A metric of which no direction is
    known ranks no rows.
    """
    if metric.higher_is_better is None:
        return []
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
        for _, part in comparable_parts(summary)
        for metric in part.metrics
        if (rows := ranked(part, metric))
        for row in part.rows
        if (values := row.values(metric.key)) and row not in rows
    }
    if not left_out:
        return []
    names = listed([f"{label} ({counted(n, 'seed')})" for label, n in left_out.items()])
    return [f"Not ranked, for having fewer finished seeds than the others: {names}."]


def rankings(summary: Summary) -> list[Ranking]:
    """One for each metric in which at least two rows can be ranked."""
    return [_ranking(summary, metric, rows) for metric in summary.metrics if len(rows := ranked(summary, metric)) > 1]


def comparable_parts(summary: Summary) -> list[tuple[str, Summary]]:
    """The parts of a study with a ranking of their own, by name: one of all if all rows are comparable.

    Otherwise one for each group of comparable rows, and, where the data are the same, one of all rows by their samples.
    """
    if len(summary.groups) <= 1:
        return [("", summary)]
    across = [metric for metric in summary.metrics if metric.of_samples] if same_data(summary.rows) else []
    within = [metric for metric in summary.metrics if metric not in across]
    parts: list[tuple[str, Summary]] = []
    for name, rows in summary.groups.items():
        short = _named_within(rows)
        parts.append((name, replace(summary, rows=short, groups={name: short}, metrics=within)))
    whole = [("samples of all rows", replace(summary, groups={"": summary.rows}, metrics=across))] if across else []
    return [*parts, *whole]


def _named_within(rows: Sequence[Row]) -> list[Row]:
    """The rows with labels of what varies among them."""
    return [
        replace(row, keys=tuple(key for key in row.keys if len({other.choices.get(key) for other in rows}) > 1))
        for row in rows
    ]


def _ranking(summary: Summary, metric: Metric, rows: list[Row]) -> Ranking:
    best, others = rows[0], rows[1:]
    cells = {row.name: summary.cell(row, metric).value for row in rows}
    values = {name: mean.mean for name, mean in cells.items() if mean}
    differences = {row.name: paired_difference(row.values(metric.key), best.values(metric.key)) for row in others}
    tested = {name: mean.p for name, mean in differences.items() if mean and mean.p is not None}
    p_holm = dict(zip(tested, holm(list(tested.values())), strict=True))
    whole = Ranking(metric, best, (), tuple(others), values, differences)

    def is_worse(row: Row) -> bool:
        difference, gap = differences[row.name], whole.gap(row)
        if difference is not None and difference.n == 1:
            return gap is None or gap >= EQUAL_FOR_ONE_SEED
        return p_holm.get(row.name, 1.0) < 0.05 and (gap is None or gap >= EQUAL)

    worse = tuple(row for row in others if is_worse(row))
    return replace(whole, tied=tuple(row for row in others if row not in worse), worse=worse)
