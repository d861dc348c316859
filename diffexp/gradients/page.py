"""gradients.html: the training gradient per band of log-SNR, drawn. One file, nothing is fetched."""

import html
import math
from typing import Any, cast

from diffexp.gradients.statistics import BandGradients, GradientStatistics

_SIGNAL, _NOISE, _OTHER = "#2b83c6", "#d55e00", "#888888"

_READING = (
    "<b>Norm</b>: length of the mean gradient, and of the noise that is left in a step of the run's batch size. "
    "Gaps: lost in noise.",
    "<b>Noise scale</b>: variance of one image's gradient over the squared norm, the batch size at which noise equals "
    "signal (McCandlish et al. 2018). Far above the run's batch size, a step is mostly noise and more images a step "
    "would pay; far below, they would not. Triangles are lower bounds, where the norm is lost in noise. Where the "
    "target holds noise of its own, the lower line is what the noise scale would be without it.",
    "<b>Share</b>: how much of the training gradient comes from a band (probability x norm), beside how much of the "
    "training time is spent there.",
    "<b>Agreement</b>: cosine between the mean gradients of two bands, corrected for noise. 1: a step for one is "
    "a step for the other; 0: they do not meet; below 0: they undo each other. Blank: lost in noise.",
)


def noise_scale(band: GradientStatistics) -> str:
    """Three digits; ">" and a lower bound where the norm is lost in noise."""
    return _images(band.noise_scale) if band.resolved else f"> {_images(band.least_noise_scale)}"


def page(title: str, found: BandGradients, batch_size: int) -> str:
    """The page as text; `batch_size` is that of the run."""
    from plotly.io import to_html  # pyright: ignore

    drawing = {"data": _traces(found, batch_size), "layout": _layout(found, batch_size)}
    drawn = cast(Any, to_html)(drawing, full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    measured = (
        f"{found.batches} batches of {found.batch_size} images per band. Over all bands: noise scale "
        f"{noise_scale(found.whole)} images, label noise {100 * found.whole.label_noise:.3g} % of the variance. Bars: "
        "two standard errors."
    )
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f"<title>Training gradient: {html.escape(title)}</title>\n",
            "<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 28px auto }\n",
            "p, li { max-width: 90ch }</style>\n</head>\n<body>\n",
            f"<h1>Training gradient by noise level</h1>\n<p>{html.escape(title)}</p>\n<p>{html.escape(measured)}</p>\n",
            f"{drawn}\n<ul>{''.join(f'<li>{line}</li>' for line in _READING)}</ul>\n</body>\n</html>\n",
        ]
    )


def _traces(found: BandGradients, batch_size: int) -> list[dict[str, Any]]:
    bands = found.bands
    centres = [(band.low + band.high) / 2 for band in bands]
    known = [band.resolved for band in bands]
    scales = [band.noise_scale if found else None for band, found in zip(bands, known, strict=True)]
    least = [None if found else band.least_noise_scale for band, found in zip(bands, known, strict=True)]

    def line(name: str, y: list[float | None], colour: str, axes: str = "", **more: Any) -> dict[str, Any]:
        shared = {"type": "scatter", "mode": "lines+markers", "marker": {"color": colour}}
        return {**shared, "name": name, "x": centres, "y": y, "xaxis": f"x{axes}", "yaxis": f"y{axes}", **more}

    traces = [
        line("norm", [b.norm if f else None for b, f in zip(bands, known, strict=True)], _SIGNAL,
             error_y=_bar([b.norm_squared_stderr / (2 * b.norm or 1.0) for b in bands])),
        line(f"noise in {batch_size} images", [math.sqrt(b.variance / batch_size) for b in bands], _NOISE),
        line("noise scale", scales, _SIGNAL, "2", showlegend=False),
        line("at least", least, _SIGNAL, "2", mode="markers", showlegend=False,
             marker={"color": _SIGNAL, "symbol": "triangle-up-open", "size": 10}),
        {"type": "bar", "name": "share of the gradient", "x": centres, "y": [b.share for b in bands],
         "xaxis": "x3", "yaxis": "y3", "marker": {"color": _SIGNAL}},
        {"type": "bar", "name": "share of the times", "x": centres, "y": [b.probability for b in bands],
         "xaxis": "x3", "yaxis": "y3", "marker": {"color": _OTHER}},
        _cosines(found),
    ]  # fmt: skip
    if any(band.label_noise for band in bands):
        without = [s and s * (1 - b.label_noise) for s, b in zip(scales, bands, strict=True)]
        traces.append(line("without label noise", without, _NOISE, "2", line={"dash": "dot"}))
    return traces


def _cosines(found: BandGradients) -> dict[str, Any]:
    names = [f"{band.low:g} to {band.high:g}" for band in found.bands]
    known = [band.resolved for band in found.bands]
    pairs = [
        [value if here and there else None for value, there in zip(row, known, strict=True)]
        for row, here in zip(found.cosine, known, strict=True)
    ]
    told = [
        [f"{value:.2f} ± {2 * stderr:.2f}" for value, stderr in zip(*rows, strict=True)]
        for rows in zip(found.cosine, found.cosine_stderr, strict=True)
    ]
    return {"type": "heatmap", "x": names, "y": names, "z": pairs, "customdata": told, "xaxis": "x4", "yaxis": "y4",
            "zmin": -1, "zmax": 1, "colorscale": "RdBu", "texttemplate": "%{z:.2f}", "hoverongaps": False,
            "hovertemplate": "%{x} with %{y}: %{customdata}<extra></extra>",
            "colorbar": {"len": 0.42, "y": 0.2, "thickness": 12}}  # fmt: skip


def _layout(found: BandGradients, batch_size: int) -> dict[str, Any]:
    def axis(title: str, low: float, high: float, anchor: str, **more: Any) -> dict[str, Any]:
        return {"title": {"text": title}, "domain": [low, high], "anchor": anchor, "gridcolor": "#e4e6ea", **more}

    log_snr, category = "log-SNR (left: noise, right: image)", {"type": "category", "showgrid": False}
    return {
        "height": 980,
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 60, "r": 10, "t": 60, "b": 60},
        "legend": {"orientation": "h", "y": 1.1},
        "xaxis": axis(log_snr, 0.0, 0.44, "y"),
        "yaxis": axis("norm", 0.58, 1.0, "x", type="log", dtick="D2", exponentformat="power"),
        "xaxis2": axis(log_snr, 0.56, 1.0, "y2"),
        "yaxis2": axis("noise scale, images", 0.58, 1.0, "x2", type="log", dtick="D2", exponentformat="power"),
        "xaxis3": axis(log_snr, 0.0, 0.44, "y3"),
        "yaxis3": axis("share", 0.0, 0.42, "x3", tickformat=".0%"),
        "xaxis4": axis("", 0.56, 1.0, "y4", **category),
        "yaxis4": axis("", 0.0, 0.42, "x4", **category),
        "annotations": [
            {"text": f"<b>{text}</b>", "x": x, "y": y, "xref": "paper", "yref": "paper", "showarrow": False,
             "xanchor": "left", "yanchor": "bottom"}
            for text, x, y in (("Norm", 0, 1), ("Noise scale", 0.56, 1), ("Share", 0, 0.42), ("Agreement", 0.56, 0.42))
        ],
        "shapes": [{"type": "line", "xref": "x2 domain", "x0": 0, "x1": 1, "yref": "y2", "y0": batch_size,
                    "y1": batch_size, "line": {"color": _OTHER, "dash": "dash", "width": 1},
                    "label": {"text": "the run's batch size", "textposition": "start", "font": {"size": 11}}}],
    }  # fmt: skip


def _bar(stderr: list[float]) -> dict[str, Any]:
    return {"type": "data", "array": [2 * half for half in stderr], "thickness": 1.2}


def _images(count: float) -> str:
    return f"{count:,.0f}" if 100 <= count < 1e7 else f"{count:.3g}"
