"""What a figure is: a function under `@figure` that turns a study into plotly's own plain data.

Nothing is drawn here: the page hands the data to plotly.js.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from diffexp.report.curves import Curves
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean
from diffexp.report.style import Style, drawn
from diffexp.report.summary import Summary
from diffexp.runs.study import Run

Trace = dict[str, Any]
LOG_SNR = "log-SNR (left: noise, right: image)"


@dataclass(frozen=True)
class Variant:
    """One setting of a figure's selector.

    Attributes:
        data: Plotly's traces.
        layout: Plotly's layout.
    """

    name: str
    data: list[Trace]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure with a caption in words; more than one variant makes a selector."""

    name: str
    title: str
    caption: str
    variants: list[Variant]


@dataclass(frozen=True)
class Study:
    """All that a figure can show.

    Attributes:
        lines: The runs that get lines of their own, with their curves: see `style.drawn`.
        note: A sentence for the caption where these are not all runs; else "".
    """

    summary: Summary
    style: Style
    lines: Sequence[tuple[Row, Run, Curves]]
    note: str

    @classmethod
    def of(cls, summary: Summary, style: Style) -> "Study":
        lines = [(row, run, summary.curves[run]) for row, run in drawn(summary.rows)]
        total = sum(1 for run in summary.runs if run.record)
        note = f" Of {total} runs the first seeds are drawn, {len(lines)} lines." if len(lines) < total else ""
        return cls(summary, style, lines, note)


Draw: TypeAlias = Callable[[Study], tuple[str, list[Variant]]]
"""Returns a caption and the variants; a figure without variants is left out."""


@dataclass(frozen=True)
class _Entry:
    title: str
    order: int
    draw: Draw


_REGISTERED: dict[str, _Entry] = {}


def figure(title: str, order: int = 100) -> Callable[[Draw], Draw]:
    """Put a function's figure on every page, under its own name.

    Args:
        title: The heading.
        order: Figures are shown in increasing order; those of diffexp are at 10, 20, ...
    """

    def register(draw: Draw) -> Draw:
        _REGISTERED[draw.__name__] = _Entry(title, order, draw)
        return draw

    return register


def draw_figures(study: Study) -> list[Figure]:
    """All registered figures in their order; those with nothing to show are left out.

    A figure that raises leaves a caption with the error: it must not end the report.
    """
    figures: list[Figure] = []
    for name, entry in sorted(_REGISTERED.items(), key=lambda item: item[1].order):
        try:
            caption, variants = entry.draw(study)
        except Exception as error:
            figures.append(Figure(name, entry.title, f"Not drawn: {type(error).__name__}: {error}", []))
        else:
            figures += [Figure(name, entry.title, caption, variants)] if variants else []
    return figures


def axis(title: str, kind: str = "linear") -> dict[str, Any]:
    """An axis of kind "linear" or "log"."""
    return {"title": {"text": html.escape(title)}, "type": kind}


def band_axes(title: str) -> dict[str, Any]:
    """Something over log-SNR, on a logarithmic axis."""
    return {"xaxis": axis(LOG_SNR), "yaxis": axis(title, "log")}


def label(row: Row) -> str:
    """A row's label in a figure; plotly reads a little HTML in names, so it is escaped."""
    return html.escape(row.label if len(row.label) <= 60 else f"{row.label[:57]}...")


def run_line(row: Row, run: Run, style: Style, legend: set[str]) -> Trace:
    """The line of one run; `legend` collects the rows that have their entry already."""
    first = row.name not in legend
    legend.add(row.name)
    return {"mode": "lines", "name": label(row), "legendgroup": row.name, "showlegend": first,
            "line": style.line(row, 1.4),
            "hovertemplate": f"%{{y}} at %{{x}}<extra>{label(row)}, seed {run.seed}</extra>"}  # fmt: skip


def error_bar(means: Sequence[Mean]) -> dict[str, Any]:
    """Half widths of the means' intervals."""
    return {"type": "data", "array": rounded(mean.half_width or 0.0 for mean in means), "thickness": 1.2, "width": 3}


def positive(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that a logarithmic axis can show."""
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if y > 0]
    return [x for x, _ in points], [y for _, y in points]


def value_axis(title: str, values: Sequence[float], ratio: float = 0.0) -> dict[str, Any]:
    """Logarithmic if all values are positive and spread over more than `ratio`, else linear."""
    return axis(title, "log" if min(values) > 0 and max(values) > ratio * min(values) else "linear")


def rounded(values: Iterable[float]) -> list[float]:
    """To four significant digits: enough to see, few to send."""
    return [float(f"{value:.4g}") for value in values]
