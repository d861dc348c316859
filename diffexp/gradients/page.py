"""gradients.html: the training gradient per band of log-SNR, as figures."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from diffexp.gradients.statistics import BandGradients, GradientStatistics
from diffexp.report.figures import Figure, Trace, Variant
from diffexp.report.html import document, figure_blocks

_SIGNAL, _NOISE, _OTHER = "#2b83c6", "#d55e00", "#888888"
_LOG_SNR = {"title": {"text": "log-SNR (left: noise, right: image)"}}


def noise_scale(band: GradientStatistics) -> str:
    """Three digits; ">" and a lower bound where the norm is lost in noise."""
    return _images(band.noise_scale) if band.resolved else f"> {_images(band.least_noise_scale)}"


def write_page(title: str, found: BandGradients, batch_size: int) -> str:
    """The page as text; `batch_size` is that of the run."""
    figures = [_norms(found, batch_size), _noise_scales(found, batch_size), _shares(found), _agreement(found)]
    measured = (
        f"{found.batches} batches of {found.batch_size} images per band. Over all bands: noise scale "
        f"{noise_scale(found.whole)} images, label noise {100 * found.whole.label_noise:.3g} % of the variance. Bars: "
        "two standard errors."
    )
    body = [
        "<h1>Training gradient by noise level</h1>",
        f"<p>{escape(title)}</p>",
        f'<p class="soft">{escape(measured)}</p>',
        *figure_blocks(figures),
    ]
    return document(f"Training gradient: {title}", "\n".join(body), figures)


def _norms(found: BandGradients, batch_size: int) -> Figure:
    bars = [2 * band.norm_squared_stderr / (2 * band.norm or 1.0) for band in found.bands]
    traces = [
        _line(found, "norm", [band.norm if band.resolved else None for band in found.bands], _SIGNAL,
              error_y={"type": "data", "array": bars, "thickness": 1.2}),
        _line(found, f"noise in {batch_size} images", [math.sqrt(band.variance / batch_size) for band in found.bands],
              _NOISE),
    ]  # fmt: skip
    caption = (
        "Length of the mean gradient, and of the noise that is left in a step of the run's batch size. Gaps: lost in "
        "noise."
    )
    return _figure("norm", "Norm", caption, traces, _log_axis("norm"))


def _noise_scales(found: BandGradients, batch_size: int) -> Figure:
    scales = [band.noise_scale if band.resolved else None for band in found.bands]
    bounds = [None if band.resolved else band.least_noise_scale for band in found.bands]
    traces = [
        _line(found, "noise scale", scales, _SIGNAL),
        _line(found, "lower bound", bounds, _SIGNAL, mode="markers", showlegend=False,
              marker={"color": _SIGNAL, "symbol": "triangle-up-open", "size": 10}),
    ]  # fmt: skip
    if any(band.label_noise for band in found.bands):
        without = [scale and scale * (1 - band.label_noise) for scale, band in zip(scales, found.bands, strict=True)]
        traces.append(_line(found, "without label noise", without, _NOISE, line={"dash": "dot"}))
    run = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": batch_size, "y1": batch_size,
           "line": {"color": _OTHER, "dash": "dash", "width": 1},
           "label": {"text": "the run's batch size", "textposition": "start", "font": {"size": 11}}}  # fmt: skip
    caption = (
        "Variance of one image's gradient over the squared norm: the batch size at which noise equals signal "
        "(McCandlish et al. 2018). Far above the run's batch size, a step is mostly noise and larger batches would "
        "help; far below, they would not. Triangles are lower bounds, where the norm is lost in noise. For a target "
        "with label noise, the dotted line is the noise scale without it."
    )
    return _figure("noise-scale", "Noise scale", caption, traces, _log_axis("noise scale, images"), shapes=[run])


def _shares(found: BandGradients) -> Figure:
    traces: list[Trace] = [
        {"type": "bar", "name": name, "x": _centres(found), "y": values, "marker": {"color": colour}}
        for name, values, colour in (
            ("share of the gradient", [band.share for band in found.bands], _SIGNAL),
            ("share of the times", [band.probability for band in found.bands], _OTHER),
        )
    ]
    caption = "Each band's share of the training gradient (probability x norm), beside its share of the training times."
    return _figure("share", "Share", caption, traces, {"title": {"text": "share"}, "tickformat": ".0%"})


def _agreement(found: BandGradients) -> Figure:
    names = [f"{band.low:g} to {band.high:g}" for band in found.bands]
    known = [band.resolved for band in found.bands]
    cosines = [
        [value if here and there else None for value, there in zip(row, known, strict=True)]
        for row, here in zip(found.cosine, known, strict=True)
    ]
    labels = [
        [f"{value:.2f} ± {2 * stderr:.2f}" for value, stderr in zip(*rows, strict=True)]
        for rows in zip(found.cosine, found.cosine_stderr, strict=True)
    ]
    trace: Trace = {
        "type": "heatmap", "x": names, "y": names, "z": cosines, "customdata": labels, "zmin": -1, "zmax": 1,
        "colorscale": "RdBu", "texttemplate": "%{z:.2f}", "hoverongaps": False,
        "hovertemplate": "%{x} with %{y}: %{customdata}<extra></extra>",
    }  # fmt: skip
    caption = (
        "Cosine between the mean gradients of two bands, corrected for noise. 1: a step for one is a step for the "
        "other; 0: they are orthogonal; below 0: they undo each other. Blank: lost in noise."
    )
    category = {"type": "category", "showgrid": False}
    return Figure("agreement", "Agreement", caption,
                  [Variant("agreement", [trace], {"xaxis": category, "yaxis": category, "height": 560})])  # fmt: skip


def _figure(name: str, title: str, caption: str, traces: list[Trace], y: dict[str, Any], **layout: Any) -> Figure:
    return Figure(name, title, caption, [Variant(name, traces, {"xaxis": _LOG_SNR, "yaxis": y, **layout})])


def _line(found: BandGradients, name: str, y: Sequence[float | None], colour: str, **more: Any) -> Trace:
    shared = {"type": "scatter", "mode": "lines+markers", "marker": {"color": colour}}
    return {**shared, "name": name, "x": _centres(found), "y": y, **more}


def _centres(found: BandGradients) -> list[float]:
    return [(band.low + band.high) / 2 for band in found.bands]


def _log_axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "type": "log", "dtick": "D2"}


def _images(count: float) -> str:
    return f"{count:,.0f}" if 100 <= count < 1e7 else f"{count:.3g}"
