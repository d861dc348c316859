"""The tables of a report: results, rankings, and evaluations by sampler."""

from collections.abc import Sequence
from urllib.parse import quote

from diffexp.report.blocks import Column, Entry, Linked, Measured, Table, TableCell
from diffexp.report.evaluations import SamplerRow
from diffexp.report.format import number, spread
from diffexp.report.metrics import Metric
from diffexp.report.notes import sampled_with
from diffexp.report.ranking import Ranking, comparable_parts, ranked
from diffexp.report.rows import Row
from diffexp.report.status import state_counts
from diffexp.report.style import Style
from diffexp.report.summary import Summary
from diffexp.report.verdict import distance
from diffexp.runs.study import Run

MOST_RANKED = 8
"""Rows that a cell of a ranking lists."""


def row_anchor(row: Row) -> str:
    """The id in the page of a row's runs."""
    return f"row-{quote(row.name, safe='')}"


def run_anchor(run: Run) -> str:
    """The id in the page of one run."""
    return f"run-{quote(run.name, safe='')}-{run.seed}"


def results_table(summary: Summary, style: Style, title: str = "") -> Table:
    """Rows against metrics, with what real images score and what predicting zero costs below them."""
    keys, sampler = summary.columns or ("target",), sampled_with(summary)
    columns = [*(Column(key, kind="name") for key in keys), Column("seeds done", "n", kind="count")]
    columns += [_metric_column(metric, sampler if metric.of_samples else "") for metric in summary.metrics]
    leaders = {
        (metric.key, best[0].name)
        for _, part in comparable_parts(summary)
        for metric in part.metrics
        if (best := ranked(part, metric))
    }
    rows: list[list[TableCell]] = []
    for row in summary.rows:
        anchor = row_anchor(row)
        cells = [Measured(summary.cell(row, metric), len(row.done), anchor, (metric.key, row.name) in leaders)
                 for metric in summary.metrics]  # fmt: skip
        rows.append([*_names(row, keys, style), Entry(status(row), anchor), *cells])
    floors = [[(floor, row) for row in summary.rows if (floor := summary.cell(row, metric).floor) is not None]
              for metric in summary.metrics]  # fmt: skip
    foot = [*_foot("floor", len(keys) + 1, floors)]
    foot += _foot("zero prediction", len(keys) + 1, [zero_predictions(summary, metric) for metric in summary.metrics])
    return Table(columns, rows, [row.label for row in summary.rows], foot, title)


def zero_predictions(summary: Summary, metric: Metric) -> list[tuple[float, Row]]:
    """Known of one row for all that are comparable with it; left out where it is not known for every group."""
    found: list[tuple[float, Row]] = []
    for group in summary.groups.values():
        known = [(zero, row) for row in group
                 if (zero := summary.zero_prediction(row).get(metric.key)) is not None]  # fmt: skip
        if not known:
            return []
        found.append(known[0])
    return found


def ranking_table(rankings: Sequence[Ranking], title: str = "") -> Table:
    """The best row in each metric, those not distinguishable from it, and those that are worse."""
    one_seed = all(ranking.seeds <= 1 for ranking in rankings)
    heads = ("best", "equal", "worse") if one_seed else ("best", "not distinguishable from it", "clearly worse")
    rows: list[list[TableCell]] = []
    for ranking in rankings:
        best = Entry(number(ranking.values[ranking.best.name]), row_anchor(ranking.best))
        rest = [_ranked(ranking, others) for others in (ranking.tied, ranking.worse)]
        rows.append([Entry(ranking.metric.title), Linked([(ranking.best.phrase, best)]), *rest])
    return Table([Column("metric", kind="name"), *(Column(head, kind="words") for head in heads)], rows, title=title)


def evaluations_table(
    summary: Summary, found: Sequence[SamplerRow], metrics: Sequence[Metric], style: Style, by: str, title: str
) -> Table:
    """Targets and what they were evaluated `by`, "sampler" or "weights", against metrics."""
    keys = summary.columns or ("target",)
    with_nfe = any(each.nfe is not None for each in found)
    columns = [*(Column(key, kind="name") for key in keys), Column(by, kind="name")]
    columns += [Column("NFE", kind="count")] if with_nfe else []
    columns += [Column("n", kind="count"), *(_metric_column(metric, "") for metric in metrics)]
    best = _best(found, metrics)
    rows: list[list[TableCell]] = []
    for place, each in enumerate(found):
        seeds = max((value.n for metric in metrics if (value := each.cell(metric).value)), default=0)
        counts = [Entry(str(each.nfe))] if with_nfe else []
        cells = [Measured(each.cell(metric), seeds, row_anchor(each.row), (metric.key, place) in best)
                 for metric in metrics]  # fmt: skip
        rows.append([*_names(each.row, keys, style), Entry(each.sampler), *counts, Entry(str(seeds)), *cells])
    floors = [[(floor, each.row) for each in found if (floor := each.cell(metric).floor) is not None]
              for metric in metrics]  # fmt: skip
    labels = [f"{each.row.label}, {each.sampler}" for each in found]
    return Table(columns, rows, labels, _foot("floor", len(keys) + 2 + with_nfe, floors), title)


def status(row: Row) -> str:
    """The number of runs that count, and the states of the others: "2", "2, 1 diverged"."""
    others = [state for state in row.states if state != "done"]
    return ", ".join([str(len(row.done)), *([state_counts(others)] if others else [])])


def _metric_column(metric: Metric, note: str) -> Column:
    up = ", higher is better" if metric.higher_is_better else ""
    short = metric.title.replace(" ", "\n")
    if metric.currency:
        short = f"{'excess' if metric.excess else 'error'}\n{metric.currency}"
    group = "samples" if metric.of_samples else "errors"
    return Column(metric.title + up, short, note, group=group, anchor="reading")


def _names(row: Row, keys: Sequence[str], style: Style) -> list[TableCell]:
    first, *rest = row.names(keys)
    return [Entry(first, row_anchor(row), style.colours[row.name]), *(Entry(name) for name in rest)]


def _foot(name: str, names: int, found: Sequence[Sequence[tuple[float, Row]]]) -> list[list[TableCell]]:
    """One row for values that lead to the rows that they were measured with; none without values."""
    if not any(found):
        return []
    cells = [Entry(spread([value for value, _ in values]), row_anchor(values[0][1])) if values else Entry("")
             for values in found]  # fmt: skip
    return [[Entry(name), *[Entry("")] * (names - 1), *cells]]


def _ranked(ranking: Ranking, rows: Sequence[Row]) -> Linked:
    items = [(row.phrase, Entry(distance(ranking, row), row_anchor(row))) for row in rows[:MOST_RANKED]]
    more = len(rows) - MOST_RANKED
    return Linked([*items, (f"and {more} more", Entry(""))] if more > 0 else items)


def _best(found: Sequence[SamplerRow], metrics: Sequence[Metric]) -> set[tuple[str, int]]:
    """The metric and place of each column's best mean, among those with the most seeds."""
    best: set[tuple[str, int]] = set()
    for metric in metrics:
        means = [(value, place) for place, each in enumerate(found) if (value := each.cell(metric).value)]
        most = max((value.n for value, _ in means), default=0)
        ordered = sorted((value.mean, place) for value, place in means if value.n == most)
        if len(ordered) > 1 and metric.higher_is_better is not None:
            best.add((metric.key, ordered[-1 if metric.higher_is_better else 0][1]))
    return best
