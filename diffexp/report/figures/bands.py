"""The newest prediction error by band of log-SNR: means over a row's finished runs, or over all if none is."""

from collections.abc import Mapping, Sequence

from diffexp.report.curves import Bands, by_band
from diffexp.report.figures.base import Study, Trace, Variant, band_axes, error_bar, figure, label, rounded
from diffexp.report.metrics import ERRORS
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean, mean_over_seeds
from diffexp.report.style import Style
from diffexp.report.summary import Summary


@figure("Prediction error by log-SNR", order=40)
def bands(study: Study) -> tuple[str, list[Variant]]:
    summary, style = study.summary, study.style
    by_row = {row.name: _means(row, summary) for row in summary.rows}
    variants: list[Variant] = []
    optimum_known = False
    for name, key in ERRORS.items():
        data: list[Trace] = []
        for row in summary.rows:
            means = by_row[row.name][name]
            data += _line(row, style, {band: mean.mean for band, mean in means.items()}, list(means.values()))
        if data:
            optimum = _optimum(summary, key)
            optimum_known = optimum_known or bool(optimum)
            variants.append(Variant(name, data + optimum, band_axes(f"prediction error, {name}")))
    ratios: list[Trace] = []
    for row in summary.rows if summary.compares else ():
        baseline = summary.baselines.get(row.name)
        reference = by_row[baseline.name]["eps"] if baseline else {}
        means = {band: mean for band, mean in by_row[row.name]["eps"].items() if band in reference}
        ratios += _line(row, style, {band: mean.mean / reference[band].mean for band, mean in means.items()}, None)
    if ratios:
        title = "prediction error / that of the baseline"
        variants.append(Variant("ratio to the baseline", ratios, band_axes(title)))
    caption = (
        "At which noise levels, from noise (left) to image (right), a target predicts better. Mean over seeds, with "
        "its 95 % interval. Within one band the currencies differ by one factor, the same for all targets"
    )
    caption += f", so the ratio to the baseline ({summary.baseline_label}) is the same in all." if ratios else "."
    caption += " Grey: the optimal prediction. Excess: the distance from it." if optimum_known else ""
    return caption, variants


def _means(row: Row, summary: Summary) -> dict[str, dict[tuple[float, float], Mean]]:
    """By name in `ERRORS` and band, the mean over the row's seeds; only what a logarithmic axis can show."""
    newest = [summary.curves[run].newest for run in row.done or row.runs]
    means: dict[str, dict[tuple[float, float], Mean]] = {name: {} for name in ERRORS}
    for name, found in means.items():
        tables = [by_band(values, ERRORS[name]) for values in newest]
        for band in sorted({band for table in tables for band in table}):
            mean = mean_over_seeds([table[band] for table in tables if band in table])
            if mean and mean.mean > 0:
                found[band] = mean
    return means


def _optimum(summary: Summary, key: str) -> list[Trace]:
    """The optimal prediction's error, where every row was measured on the same draws and it is known."""
    known = [by_band(row.done[0].optimum, key) for row in summary.rows if row.done]
    found: Bands = {band: value for band, value in known[0].items() if value > 0} if known else {}
    if not found or any(other != known[0] for other in known):
        return []
    return [{"x": _centres(found), "y": rounded(found.values()), "name": "optimal prediction",
             "mode": "lines", "line": {"color": "#888888", "dash": "dot", "width": 2}}]  # fmt: skip


def _line(
    row: Row, style: Style, values: Mapping[tuple[float, float], float], means: Sequence[Mean] | None
) -> list[Trace]:
    if not values:
        return []
    line = {"x": _centres(values), "y": rounded(values.values()), "name": label(row), "mode": "lines+markers",
            "line": style.line(row), "marker": style.marker(row, 6)}  # fmt: skip
    return [{**line, "error_y": error_bar(means)} if means else line]


def _centres(values: Mapping[tuple[float, float], float]) -> list[float]:
    return [(low + high) / 2 for low, high in values]
