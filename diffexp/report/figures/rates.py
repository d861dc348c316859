"""The metrics over the learning rate, one line per otherwise equal rows."""

import html

from diffexp.report.figures.base import Study, Trace, Variant, axis, error_bar, figure, rounded, value_axis
from diffexp.report.rows import RATE, Row
from diffexp.report.statistics import Mean


@figure("Learning rates", order=20)
def rates(study: Study) -> tuple[str, list[Variant]]:
    summary, style = study.summary, study.style
    variants: list[Variant] = []
    for metric in summary.metrics if summary.best_rate else ():
        groups: dict[tuple[str, ...], list[tuple[float, Row, Mean]]] = {}
        for row in summary.rows:
            value, rate = summary.cell(row, metric).value, _number(row.choices.get(RATE, ""))
            if value and rate:
                kind = tuple(row.choices.get(key, "") for key in summary.keys if key != RATE)
                groups.setdefault(kind, []).append((rate, row, value))
        data: list[Trace] = []
        for kind, points in groups.items():
            points.sort(key=lambda point: point[0])
            row, means = points[0][1], [mean for _, _, mean in points]
            data.append({"x": [rate for rate, _, _ in points], "y": rounded(mean.mean for mean in means),
                         "error_y": error_bar(means), "name": html.escape(", ".join(kind)),
                         "mode": "lines+markers", "line": {**style.line(row), "dash": "solid"},
                         "marker": style.marker(row)})  # fmt: skip
        if data:
            tried = sorted({rate for points in groups.values() for rate, _, _ in points})
            ticks = {"tickvals": tried, "ticktext": [f"{rate:g}" for rate in tried], "tickangle": 0}
            y = value_axis(metric.title, [y for trace in data for y in trace["y"]])
            layout = {"xaxis": {**axis("learning rate", "log"), **ticks}, "yaxis": y}
            variants.append(Variant(metric.title, data, layout))
    return (
        "Mean over seeds at each learning rate. A best rate at the end of the range tried may not be the best."
    ), variants


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
