"""The figures of the page, as plotly's own plain data: one list of traces and one layout per variant.

Nothing is drawn here: the page hands these to plotly.js.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from diffexp.report.curves import Curves, by_band
from diffexp.report.metrics import ERRORS
from diffexp.report.rows import RATE, Row
from diffexp.report.statistics import Mean, mean_over_seeds
from diffexp.report.style import Look, drawn
from diffexp.report.summary import Summary
from diffexp.runs.study import Run

Trace = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One setting of a figure's selector."""

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


def all_figures(summary: Summary, curves: Mapping[Path, Curves], style: Look) -> list[Figure]:
    """The page's figures in its order; those without anything to show are left out."""
    lines = [(row, run, curves[run.path]) for row, run in drawn(summary.rows) if run.path in curves]
    left_out = sum(1 for run in summary.runs if run.record) - len(lines)
    note = f" Of {len(lines) + left_out} runs the first seeds are drawn, {len(lines)} lines." if left_out else ""
    figures = [
        seeds_and_means(summary, style),
        belief_over_images(lines, style, note),
        belief_by_band(summary, curves, style),
        effective_weight(summary.rows, style),
        training_loss(lines, style, note),
    ]
    if summary.best_rate:
        figures.insert(1, over_rates(summary, style))
    return [figure for figure in figures if figure.variants]


def seeds_and_means(summary: Summary, style: Look) -> Figure:
    """Every seed as a dot, every mean with its interval."""
    variants: list[Variant] = []
    for metric in summary.metrics:
        data: list[Trace] = []
        for row in reversed(summary.rows):
            cell, label = summary.cell(row, metric), _label(row)
            values = row.values(metric.key)
            if cell.value is None:
                continue
            names = [f"seed {seed}" for seed in values]
            shared = {"mode": "markers", "showlegend": False}
            if cell.value.n > 1:
                mean = {"x": _rounded([cell.value.mean]), "error_x": _bar([cell.value])}
                pale = {**style.marker(row, 12), "opacity": 0.5}
                data.append({**shared, **mean, "y": [label], "marker": pale,
                             "hovertemplate": "mean %{x}<extra></extra>"})  # fmt: skip
            data.append({**shared, "x": _rounded(values.values()), "y": [label] * len(values), "text": names,
                         "marker": style.marker(row, 5 if cell.value.n > 1 else 9),
                         "hovertemplate": "%{text}: %{x}<extra></extra>"})  # fmt: skip
        values = [cell.value.mean for row in summary.rows if (cell := summary.cell(row, metric)).value]
        if values:
            axis = "log" if min(values) > 0 and max(values) > 30 * min(values) else "linear"
            layout = {
                "xaxis": _axis(metric.title, axis),
                "yaxis": {"type": "category", "dtick": 1},
                "height": 130 + 26 * len(summary.rows),
            }
            variants.append(Variant(metric.title, data, layout))
    caption = "Small marks are seeds, large ones their mean with its 95 % Student-t interval. Lower is better unless "
    caption += "the table says otherwise. Seeds are paired: what tells two rows apart is their difference seed by seed."
    if summary.most_seeds <= 1:
        caption = "One mark per row: one seed gives no interval. Lower is better unless the table says otherwise."
    return Figure("seeds", "Seed by seed", caption, variants)


def over_rates(summary: Summary, style: Look) -> Figure:
    """The metrics over the learning rate, one line per otherwise equal rows."""
    variants: list[Variant] = []
    for metric in summary.metrics:
        data: list[Trace] = []
        groups: dict[tuple[str, ...], list[tuple[float, Row, Mean]]] = {}
        for row in summary.rows:
            value, rate = summary.cell(row, metric).value, _number(row.choices.get(RATE, ""))
            if value and rate:
                kind = tuple(row.choices.get(key, "") for key in summary.keys if key != RATE)
                groups.setdefault(kind, []).append((rate, row, value))
        for kind, points in groups.items():
            points.sort(key=lambda point: point[0])
            row = points[0][1]
            means = [mean for _, _, mean in points]
            data.append({"x": [rate for rate, _, _ in points], "y": _rounded(mean.mean for mean in means),
                         "error_y": _bar(means), "name": html.escape(", ".join(kind)),
                         "mode": "lines+markers", "line": {**style.line(row), "dash": "solid"},
                         "marker": style.marker(row)})  # fmt: skip
        if data:
            positive = all(y > 0 for trace in data for y in trace["y"])
            y = _axis(metric.title, "log" if positive else "linear")
            rates = sorted({rate for points in groups.values() for rate, _, _ in points})
            ticks = {"tickvals": rates, "ticktext": [f"{rate:g}" for rate in rates], "tickangle": 0}
            variants.append(
                Variant(metric.title, data, {"xaxis": {**_axis("learning rate", "log"), **ticks}, "yaxis": y})
            )
    caption = "Mean over seeds at each learning rate. A best rate at the end of the range tried may not be the best."
    return Figure("rates", "Learning rates", caption, variants)


def belief_over_images(lines: Sequence[tuple[Row, Run, Curves]], style: Look, note: str) -> Figure:
    """The belief error of each run over images seen, in each currency, and its excess where that is known."""
    variants: list[Variant] = []
    for name in ERRORS:
        data: list[Trace] = []
        legend: set[str] = set()
        for row, run, curves in lines:
            images, errors = _positive(*curves.belief[name])
            if images:
                data.append({**_run_line(row, run, style, legend), "x": images, "y": _rounded(errors)})
        if data:
            axes = {"xaxis": _axis("images seen"), "yaxis": _axis(f"belief error, {name}", "log")}
            variants.append(Variant(name, data, axes))
    caption = "One line per run, on the same held-out images, times and noise for all; comparable across targets."
    return Figure("belief", "Belief error over images seen", caption + note, variants)


def belief_by_band(summary: Summary, curves: Mapping[Path, Curves], style: Look) -> Figure:
    """The newest belief error by band of log-SNR: means over a row's finished runs, or over all "
    "if none is."""
    variants: list[Variant] = []
    by_row = {row.name: _bands(row, curves) for row in summary.rows}
    best = False
    for name, key in ERRORS.items():
        data: list[Trace] = []
        for row in summary.rows:
            means = by_row[row.name][name]
            data += _band_line(row, style, {band: mean.mean for band, mean in means.items()}, list(means.values()))
        if data:
            known = _best_line(summary, key)
            best = best or bool(known)
            variants.append(Variant(name, data + known, _band_axes(f"belief error, {name}")))
    ratios: list[Trace] = []
    for row in summary.rows if summary.compares else ():
        baseline = summary.baselines.get(row.name)
        reference = by_row[baseline.name]["eps"] if baseline else {}
        means = {band: mean for band, mean in by_row[row.name]["eps"].items() if band in reference}
        shares = {band: mean.mean / reference[band].mean for band, mean in means.items()}
        ratios += _band_line(row, style, shares, None)
    if ratios:
        variants.append(Variant("ratio to the baseline", ratios, _band_axes("belief error / that of the baseline")))
    caption = "Where on the way from noise (left) to image (right) a target knows more. Mean over seeds, with its "
    caption += "95 % interval. Within one band the currencies differ by one factor, the same for all targets"
    caption += f", so the ratio to the baseline ({summary.baseline_label}) is the same in all." if ratios else "."
    caption += " Grey: the best possible belief. Excess: how far from it." if best else ""
    return Figure("bands", "Belief error by log-SNR", caption, variants)


def _bands(row: Row, curves: Mapping[Path, Curves]) -> dict[str, dict[tuple[float, float], Mean]]:
    """By name in `ERRORS` and band, the mean over the row's seeds; only what a logarithmic axis can show."""
    read = [curves[run.path] for run in row.done or row.runs if run.path in curves]
    means: dict[str, dict[tuple[float, float], Mean]] = {name: {} for name in ERRORS}
    for name, bands in means.items():
        tables = [one.bands[name] for one in read]
        for band in sorted({band for table in tables for band in table}):
            mean = mean_over_seeds([table[band] for table in tables if band in table])
            if mean and mean.mean > 0:
                bands[band] = mean
    return means


def _best_line(summary: Summary, key: str) -> list[Trace]:
    """The best possible belief's error, where every row was measured on the same draws and it is known."""
    known = [by_band(row.done[0].optimum, key) for row in summary.rows if row.done]
    bands = {band: value for band, value in known[0].items() if value > 0} if known else {}
    if not bands or any(other != known[0] for other in known):
        return []
    return [{"x": [(low + high) / 2 for low, high in bands], "y": _rounded(bands.values()), "name": "best possible",
             "mode": "lines", "line": {"color": "#888888", "dash": "dot", "width": 2}}]  # fmt: skip


def _band_line(
    row: Row, style: Look, values: Mapping[tuple[float, float], float], means: Sequence[Mean] | None
) -> list[Trace]:
    if not values:
        return []
    line = {"x": [(low + high) / 2 for low, high in values], "y": _rounded(values.values()),
            "name": _label(row), "mode": "lines+markers", "line": style.line(row),
            "marker": style.marker(row, 6)}  # fmt: skip
    return [{**line, "error_y": _bar(means)} if means else line]


def _band_axes(title: str) -> dict[str, Any]:
    return {"xaxis": _axis("log-SNR (left: noise, right: image)"), "yaxis": _axis(title, "log")}


def effective_weight(rows: Sequence[Row], style: Look) -> Figure:
    """What each row's loss pays for, once it is read as a weight on the eps-error."""
    data: list[Trace] = []
    for row in rows:
        table = next((run.record["effective_weight"] for run in row.runs if run.record.get("effective_weight")), None)
        if not isinstance(table, dict):
            continue
        weights = cast(dict[str, Any], table)
        x, y = _positive(_list(weights.get("log_snr")), _list(weights.get("weight")))
        if x:
            data.append({"x": _rounded(x), "y": _rounded(y), "name": _label(row), "mode": "lines",
                         "line": style.line(row, 2.2)})  # fmt: skip
    axes = {
        "xaxis": _axis("log-SNR (left: noise, right: image)"),
        "yaxis": _axis("weight on the eps-error", "log"),
    }
    caption = "Target, loss space and weighting together amount to one weight on the squared eps-error (mean 1 over "
    caption += "times). Rows with one and the same weight differ only in what the network is asked for; else two "
    caption += "things were turned at once."
    return Figure("weight", "Effective weight", caption, [Variant("weight", data, axes)] if data else [])


def training_loss(lines: Sequence[tuple[Row, Run, Curves]], style: Look, note: str) -> Figure:
    """Training losses, made comparable by what predicting zero costs, or each target's alone in "
    "its own units."""
    relative: list[Trace] = []
    raw: dict[str, list[Trace]] = {}
    legends: dict[str, set[str]] = {}
    for row, run, curves in lines:
        images, losses = _positive(*curves.loss)
        if not images:
            continue
        zero = curves.zero_loss
        if zero and zero > 0:
            line = _run_line(row, run, style, legends.setdefault("", set()))
            relative.append({**line, "x": images, "y": _rounded(loss / zero for loss in losses)})
        unit = f"raw, {row.target}" + (f", space {row.choices['space']}" if "space" in row.keys else "")
        line = _run_line(row, run, style, legends.setdefault(unit, set()))
        raw.setdefault(unit, []).append({**line, "x": images, "y": _rounded(losses)})
    variants: list[Variant] = []
    if relative:
        axes = {
            "xaxis": _axis("images seen"),
            "yaxis": _axis("training loss / loss of predicting zero", "log"),
        }
        variants.append(Variant("share of zero's loss", relative, axes))
    for unit, data in raw.items():
        axes = {
            "xaxis": _axis("images seen"),
            "yaxis": _axis(f"training loss ({unit} units)", "log"),
        }
        variants.append(Variant(unit, data, axes))
    caption = "Raw losses of different targets are in different units and cannot be compared: each is drawn alone, or "
    caption += "divided by what predicting zero costs in its own units. Even so a lower curve is not a better network: "
    caption += "how much of a target can be known differs, and targets that hold fresh noise have a floor above zero."
    return Figure("loss", "Training loss", caption + note, variants)


def _run_line(row: Row, run: Run, style: Look, legend: set[str]) -> Trace:
    first = row.name not in legend
    legend.add(row.name)
    label = _label(row)
    return {"mode": "lines", "name": label, "legendgroup": row.name, "showlegend": first,
            "line": style.line(row, 1.4),
            "hovertemplate": f"%{{y}} at %{{x}}<extra>{label}, seed {run.seed}</extra>"}  # fmt: skip


def _label(row: Row) -> str:
    """Plotly reads a little HTML in names, so a name is escaped before it is drawn."""
    label = row.label if len(row.label) <= 60 else f"{row.label[:57]}..."
    return html.escape(label)


def _axis(title: str, kind: str = "linear") -> dict[str, Any]:
    return {"title": {"text": html.escape(title)}, "type": kind}


def _bar(means: Sequence[Mean]) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [_short(mean.half_width or 0.0) for mean in means],
        "thickness": 1.2,
        "width": 3,
    }


def _positive(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that a logarithmic axis can show."""
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if y > 0]
    return [x for x, _ in points], [y for _, y in points]


def _list(value: object) -> list[float]:
    numbers = cast(list[Any], value) if isinstance(value, list) else []
    return [float(x) if isinstance(x, int | float) else 0.0 for x in numbers[:1000]]


def _rounded(values: Iterable[float]) -> list[float]:
    return [_short(value) for value in values]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
