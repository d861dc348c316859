"""report.html: one file that explains a study to somebody who was not there.

Images are data URIs, links lead into the page and to the run directories beside it. Every word that comes from a run
is escaped.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, cast

from diffexp.report.curves import read_curves
from diffexp.report.facts import choosing, facts
from diffexp.report.failures import failures
from diffexp.report.figures import all_figures
from diffexp.report.format import number
from diffexp.report.grids import samples
from diffexp.report.html import document, figure_blocks
from diffexp.report.links import link, row_anchor, run_anchor
from diffexp.report.metrics import Metric
from diffexp.report.notes import SAMPLES_AND_BELIEFS, reasons, where_totals_lie
from diffexp.report.ranking_table import rankings
from diffexp.report.results import reading, results_table
from diffexp.report.rows import common_settings
from diffexp.report.states import state_counts
from diffexp.report.style import Look, drawn, look
from diffexp.report.summary import Summary
from diffexp.report.verdict import headline, progress, question
from diffexp.runs.study import Run

#: What is shown of a run's record, in this order.
_DETAILS = ("error", "device", "git", "parameters", "images_seen", "max_images", "clip", "t_min", "t_max",
            "created", "updated", "config_hash")  # fmt: skip


def write_page(summary: Summary, folder: Path) -> str:
    """The page as text, with links that are right when it lies in `folder`."""
    style = look(summary.rows)
    wanted = {run.path for _, run in drawn(summary.rows)} | {run.path for row in summary.rows for run in row.done}
    curves = {run.path: read_curves(run) for run in summary.runs if run.path in wanted}
    figures = all_figures(summary, curves, style)
    body = "\n".join(
        [
            *_opening(summary),
            *_results(summary, style),
            *_reasons(summary),
            *figure_blocks(figures),
            *samples(summary, folder),
            *_settings(summary),
            *_runs(summary, folder, style),
        ]
    )
    return document(f"{summary.study}: {question(summary)}", body, figures)


def _opening(summary: Summary) -> Iterator[str]:
    yield f"<h1>{escape(question(summary))}</h1>"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield f'<p class="soft">Study <b>{escape(summary.study)}</b>. {progress(summary)}. Written {written}.</p>'
    yield "".join(f"<p>{escape(fact)}</p>" for fact in [" ".join(facts(summary))] if fact)
    told = headline(summary)
    yield '<ul class="headline">' + "".join(f"<li>{escape(sentence)}</li>" for sentence in told) + "</ul>"
    yield from rankings(summary.best_rate or summary)
    problems = failures(summary)
    if problems:
        yield '<div class="warn" id="failures"><p><b>What went wrong</b></p>'
        yield from (f"<p>{escape(problem)}</p>" for problem in problems)
        yield "</div>"


def _results(summary: Summary, style: Look) -> Iterator[str]:
    yield '<h2 id="results">Results</h2>'
    if summary.best_rate:
        yield "<h3>Each at its best learning rate</h3>"
        yield f"<p>{escape(choosing(summary.best_rate))}</p>"
        yield from results_table(summary.best_rate, style)
        yield "<h3>At equal learning rates</h3>"
    yield from results_table(summary, style)
    yield from reading(summary)


def _reasons(summary: Summary) -> Iterator[str]:
    found, totals = reasons(summary), where_totals_lie(summary)
    if not found and not totals:
        return
    yield '<h2 id="why">Why</h2>'
    if totals:
        yield "<p>A total is a sum over noise levels, and each unit weights them in its own way:</p><ul>"
        yield from (f"<li>{escape(sentence)}</li>" for sentence in totals)
        yield "</ul>"
    if totals and any(metric.of_samples for metric in summary.metrics):
        yield f"<p>{escape(SAMPLES_AND_BELIEFS)}</p>"
    yield '<ul class="reasons">'
    for label, sentences in found.items():
        yield f"<li><b>{escape(label)}</b>: {escape(' '.join(sentences))}</li>"
    yield "</ul>"


def _settings(summary: Summary) -> Iterator[str]:
    yield '<h2 id="settings">Equal for all runs</h2>'
    shared = dict(summary.common)
    for key in ("clip", "t_min", "t_max", "max_images", "parameters", "device", "git"):
        values = {_value(run, key) for run in summary.runs if run.record}
        if len(values) == 1 and (value := values.pop()):
            shared[key.replace("_", " ")] = value
    yield _list(shared)
    settings = common_settings(summary.rows)
    if settings:
        yield f"<details><summary>All {len(settings)} shared settings</summary>{_list(settings)}</details>"


def _runs(summary: Summary, folder: Path, style: Look) -> Iterator[str]:
    yield ('<h2 id="runs">Runs</h2><p class="small">Each with the command that repeats it. Links lead to the run ')
    yield "directories beside this page."
    if any("hydra.mode=RUN" in run.text("command") for run in summary.runs):
        yield " <code>hydra.mode=RUN</code>: this one run, where the experiment's file describes a sweep."
    yield "</p>"
    for row in summary.rows:
        swatch = f'<span class="mark" style="background:{style.colours[row.name]}"></span>'
        yield f'<details id="{row_anchor(row)}"><summary>{swatch}<b>{escape(row.label)}</b> '
        yield f'<span class="soft">{state_counts(row.states)}</span></summary>'
        for run, state in zip(row.runs, row.states, strict=True):
            yield from _run(run, state, summary.metrics, folder)
        yield "</details>"


def _run(run: Run, state: str, metrics: Iterable[Metric], folder: Path) -> Iterator[str]:
    yield f'<div class="run" id="{run_anchor(run)}"><h4>seed {run.seed}: {state} '
    yield f'<a class="small" href="{link(run.path / "run.json", folder)}">run.json</a></h4>'
    command = str(run.record.get("command") or "")[:4000]
    if command:
        yield f"<pre>{escape(command)}</pre>"
    shown = {key.replace("_", " "): text for key in _DETAILS if (text := _value(run, key))}
    versions = run.record.get("versions")
    if isinstance(versions, dict):
        entries = list(cast(dict[str, Any], versions).items())[:40]
        shown["versions"] = ", ".join(f"{name} {version}" for name, version in entries)
    shown |= {metric.title: number(run.final[metric.key]) for metric in metrics if metric.key in run.final}
    yield f"{_list(shown)}</div>"


def _value(run: Run, key: str) -> str:
    """An entry of the record, counts with separators."""
    count = run.number(key) if key in ("parameters", "images_seen", "max_images") else None
    return run.text(key) if count is None else f"{count:,.0f}"


def _list(entries: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries.items())
    return f'<dl class="settings">{items}</dl>'
