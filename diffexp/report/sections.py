"""A report as data: every sentence, table and figure of it, once, for terminal, page and Markdown alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from diffexp.report.blocks import (
    Block,
    Box,
    Code,
    Definitions,
    Figures,
    Fold,
    Pictures,
    Points,
    Section,
    Text,
    Tone,
)
from diffexp.report.evaluations import evaluated_metrics, sampler_rows, weights_rows
from diffexp.report.figures import Study, draw_figures
from diffexp.report.format import count, number
from diffexp.report.metrics import IN_OWN_UNITS, Metric
from diffexp.report.notes import cautions, choosing, facts, failures
from diffexp.report.ranking import comparable_parts, rankings, unranked
from diffexp.report.reasons import SAMPLES_AND_ERRORS, reasons, where_totals_lie
from diffexp.report.rows import Row, common_settings
from diffexp.report.status import state_counts
from diffexp.report.style import Style, style_of
from diffexp.report.summary import Summary
from diffexp.report.table import (
    evaluations_table,
    ranking_table,
    results_table,
    row_anchor,
    run_anchor,
    zero_predictions,
)
from diffexp.report.verdict import progress, question, verdict
from diffexp.runs.study import Run

#: What is shown of a run's record, in this order.
_DETAILS = ("error", "device", "git", "parameters", "images_seen", "max_images", "clip", "t_min", "t_max",
            "created", "updated", "config_hash")  # fmt: skip
_SHARED = ("clip", "t_min", "t_max", "max_images", "parameters", "device", "git")
_COUNTS = ("parameters", "images_seen", "max_images")


class Report:
    """The sections of a study's report, each made when it is used.

    Attributes:
        study: Its name.
        question: What it compares.
    """

    def __init__(self, summary: Summary) -> None:
        self.summary, self.style = summary, style_of(summary.rows)
        self.study, self.question = summary.study, question(summary)

    def section(self, name: str) -> Section:
        """The section of one of `SECTIONS`; without blocks where the study has nothing to show in it."""
        title, build = SECTIONS[name]
        return Section(name, title, build(self.summary, self.style))


def _facts(summary: Summary, style: Style) -> Sequence[Block]:
    return [Text(" ".join([f"{progress(summary)}.", *facts(summary)]))]


def _equal(summary: Summary, style: Style) -> Sequence[Block]:
    return [Text(f"Equal for all: {', '.join(f'{k} {v}' for k, v in summary.common.items()) or 'nothing'}.")]


def _verdict(summary: Summary, style: Style) -> Sequence[Block]:
    return [Points.of(verdict(summary), "strong")]


def _rankings(summary: Summary, style: Style) -> Sequence[Block]:
    best = summary.best_rate or summary
    tables = [ranking_table(found, name) for name, part in comparable_parts(best) if (found := rankings(part))]
    return [*tables, *(Text(note, "soft") for note in unranked(best))]


def _failures(summary: Summary, style: Style) -> Sequence[Block]:
    return _points(failures(summary), "warning")


def _cautions(summary: Summary, style: Style) -> Sequence[Block]:
    return _points(cautions(summary), "warning")


def _points(sentences: Sequence[str], tone: Tone) -> list[Block]:
    return [Points.of(sentences, tone)] if sentences else []


def _results(summary: Summary, style: Style) -> Sequence[Block]:
    legend = Text(_legend(summary), "soft")
    best = summary.best_rate
    if not best:
        return [legend, results_table(summary, style)]
    chosen = results_table(best, style, "Each at its best learning rate")
    return [legend, results_table(summary, style, "At equal learning rates"), chosen, Text(choosing(best), "soft")]


def _legend(summary: Summary) -> str:
    """How to read a cell; "" where there are no numbers."""
    several = summary.most_seeds > 1
    sentences = ["Means over the n finished seeds, with their 95 % Student-t interval."] if several else []
    if summary.most_seeds == 1:
        sentences.append("One finished seed per row (n = 1): no confidence interval can be given.")
    if summary.compares:
        marks = ", with its own interval; * marks an interval without 0" if several else ""
        sentences.append(
            f"d: difference to the baseline ({summary.baseline_label}, all else equal), paired seed by seed{marks}."
        )
    cells = [summary.cell(row, metric) for row in summary.rows for metric in summary.metrics]
    if any(cell.value is None and cell.so_far is not None for cell in cells):
        sentences.append("In brackets: the latest value of runs that are not done; it enters no mean.")
    return " ".join(sentences)


def _emphasis(summary: Summary, style: Style) -> Sequence[Block]:
    group = " and group" if len(summary.groups) > 1 else ""
    return [Text(f"Bold: best of its column{group}.", "soft")] if summary.most_seeds else []


def _reading(summary: Summary, style: Style) -> Sequence[Block]:
    meanings: dict[str, list[str]] = {}
    for metric in [*summary.metrics, *evaluated_metrics(summary, True), *evaluated_metrics(summary, False)]:
        titles = meanings.setdefault(metric.meaning, [])
        titles += [metric.title] if metric.title not in titles else []
    points = [("; ".join(titles), f"{meaning}.") for meaning, titles in meanings.items() if meaning]
    if meanings.get(""):
        points.append(("; ".join(meanings[""]), "not known to diffexp; shown as it was recorded."))
    if any(metric.of_samples and metric.family for metric in summary.metrics):
        points.append(("floor", "what real training images score against real held-out images, a bound in practice."))
    if any(summary.cell(row, "val/bits_per_dim").floor is not None for row in summary.rows):
        points.append(("floor of bits/dim", "that of the optimal prediction, on the same images and noise."))
    if any(zero_predictions(summary, metric) for metric in summary.metrics):
        points.append(
            ("zero prediction", "predicting eps = 0, measured on an epsilon network before its first step."),
        )
    return [*_significance(summary), Points(points, "soft"), *_absent(summary)]


def _significance(summary: Summary) -> Sequence[Block]:
    kept = [
        f"{row.label} in {metric.title} (p = {p:.2g})"
        for metric in summary.metrics
        for row in summary.rows
        if (p := summary.cell(row, metric).p_holm) is not None and p < 0.05
    ]
    if not any(cell.p_holm is not None for cell in summary.cells.values()):
        return []
    shown = "; ".join(kept[:24]) + (f"; and {len(kept) - 24} more" if len(kept) > 24 else "")
    return [
        Text(
            "The intervals are for one comparison at a time. Corrected after Holm for all rows of a column, these "
            f"differences stay below 5 %: {shown or 'none'}.",
            "soft",
        )
    ]


def _absent(summary: Summary) -> Sequence[Block]:
    """What was measured and is no column, and why."""
    keys = {key for _, key in summary.cells}
    losses = [f"{key} ({meaning})" for key, meaning in IN_OWN_UNITS.items() if key in keys]
    sentences = ["Training losses are not in this table: each is in units of its own."]
    if losses:
        sentences = [f"Not in this table, being in units of the target's own: the training loss, {', '.join(losses)}."]
    shown = {metric.key for metric in summary.metrics}
    if any(metric.excess for metric in summary.metrics) and not shown.issuperset({"val/belief_eps"}):
        sentences.append("A prediction error is its excess plus the optimum's error, so the excess alone is shown.")
    return [Text(" ".join([*sentences, "summary.csv and --format json hold every number."]), "soft")]


def _samplers(summary: Summary, style: Style) -> Sequence[Block]:
    found, weights = sampler_rows(summary), weights_rows(summary)
    of_samples, of_weights = evaluated_metrics(summary, True), evaluated_metrics(summary, False)
    blocks: list[Block] = []
    if found and of_samples:
        blocks.append(evaluations_table(summary, found, of_samples, style, "sampler", "Samples, by sampler"))
    if weights and of_weights:
        title = "Evaluations that do not depend on the sampler"
        blocks.append(evaluations_table(summary, weights, of_weights, style, "weights", title))
    legend = "Measured by diffexp evaluate on trained weights; means over the n seeds that were evaluated."
    return [Text(legend, "soft"), *blocks] if blocks else []


def _why(summary: Summary, style: Style) -> Sequence[Block]:
    found, totals = reasons(summary), where_totals_lie(summary)
    blocks: list[Block] = []
    if totals:
        blocks += [Text("A total is a sum over noise levels, and each unit weights them in its own way:")]
        blocks += [Points.of(totals)]
        if any(metric.of_samples for metric in summary.metrics):
            blocks.append(Text(SAMPLES_AND_ERRORS))
    if found:
        blocks.append(Points([(label, " ".join(sentences)) for label, sentences in found.items()]))
    return blocks


def _figures(summary: Summary, style: Style) -> Sequence[Block]:
    figures = draw_figures(Study.of(summary, style))
    return [Figures(figures)] if figures else []


def _samples(summary: Summary, style: Style) -> Sequence[Block]:
    """The grids of samples: real images first, and the same without clipping in a fold."""
    grids = _pictures(summary, "final.png")
    if not grids:
        return []
    real = next((file for run in summary.runs if (file := run.file("samples/data.png"))), None)
    blocks: list[Block] = [
        Text(
            "All grids of one seed start from the same noise, place by place; what differs is the prediction target. "
            "Real images are first."
        ),
        Pictures([*([("real images", "", real)] if real else []), *grids]),
    ]
    if unclipped := _pictures(summary, "final_unclipped.png"):
        blocks.append(
            Fold("The same samples without clamping predictions of x0 to [-1, 1]", [Pictures(unclipped)]),
        )
    return blocks


def _pictures(summary: Summary, name: str) -> list[tuple[str, str, Path]]:
    """Each row's grid of that name, of its first seed that has one."""
    found: list[tuple[str, str, Path]] = []
    for row in summary.rows:
        run, file = next(((run, file) for run in row.runs if (file := run.file(f"samples/{name}"))), (None, None))
        if run and file:
            found.append((f"{row.label}, seed {run.seed}", run_anchor(run), file))
    return found


def _settings(summary: Summary, style: Style) -> Sequence[Block]:
    shared = dict(summary.common)
    for key in _SHARED:
        values = {_value(run, key) for run in summary.runs if run.record}
        if len(values) == 1 and (value := values.pop()):
            shared[key.replace("_", " ")] = value
    settings = common_settings(summary.rows)
    fold = Fold(f"All {len(settings)} shared settings", [Definitions(list(settings.items()))])
    return [Definitions(list(shared.items())), *([fold] if settings else [])]


def _runs(summary: Summary, style: Style) -> Sequence[Block]:
    note = "Each with the command that repeats it. Links lead to the run directories beside this page."
    if any("hydra.mode=RUN" in run.text("command") for run in summary.runs):
        note += " hydra.mode=RUN: this one run, where the experiment's file describes a sweep."
    return [Text(note, "soft"), *(_row(row, summary.metrics, style) for row in summary.rows)]


def _row(row: Row, metrics: Sequence[Metric], style: Style) -> Fold:
    boxes = [_run(run, state, metrics) for run, state in zip(row.runs, row.states, strict=True)]
    return Fold(row.label, boxes, state_counts(row.states), row_anchor(row), style.colours[row.name])


def _run(run: Run, state: str, metrics: Sequence[Metric]) -> Box:
    command = str(run.record.get("command") or "")[:4000]
    shown = {key.replace("_", " "): text for key in _DETAILS if (text := _value(run, key))}
    versions = run.record.get("versions")
    if isinstance(versions, dict):
        entries = list(cast(dict[str, Any], versions).items())[:40]
        shown["versions"] = ", ".join(f"{name} {version}" for name, version in entries)
    shown |= {metric.title: number(run.final[metric.key]) for metric in metrics if metric.key in run.final}
    blocks: list[Block] = [Code(command)] if command else []
    title = f"seed {run.seed}: {state}"
    return Box(title, [*blocks, Definitions(list(shown.items()))], run.path / "run.json", run_anchor(run))


def _value(run: Run, key: str) -> str:
    """An entry of the record, counts with separators."""
    value = run.number(key) if key in _COUNTS else None
    return run.text(key) if value is None else count(value)


#: Every section by its name: its title, and what makes its blocks.
SECTIONS = {
    "facts": ("", _facts),
    "equal": ("", _equal),
    "verdict": ("", _verdict),
    "rankings": ("", _rankings),
    "failures": ("What went wrong", _failures),
    "results": ("Results", _results),
    "emphasis": ("", _emphasis),
    "cautions": ("Limits of the metrics", _cautions),
    "reading": ("", _reading),
    "samplers": ("Samplers", _samplers),
    "why": ("Why", _why),
    "figures": ("", _figures),  # `html.figure_blocks` has the heading, for every page with figures
    "samples": ("Samples", _samples),
    "settings": ("Equal for all runs", _settings),
    "runs": ("Runs", _runs),
}
