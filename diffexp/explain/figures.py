"""The figures of the page, as plotly's own plain data."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from diffexp.explain.text import optimum_of
from diffexp.report.figures import Figure, Trace, Variant
from diffexp.report.style import target_colours

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation

_OPTIMUM, _LINEAR, _MULTIPLE, _ZERO, _LABEL = "#2b83c6", "#009e73", "#e69f00", "#888888", "#d55e00"
_LOG_SNR = "log-SNR (left: noise, right: image)"


def all_figures(found: "Explanation") -> list[Figure]:
    """In the order of the page."""
    return [shares(found), explained_noise(found), losses(found), weights(found)]


def shares(found: "Explanation") -> Figure:
    """The zero-prediction loss of each target, split by which prediction removes it and what remains."""
    names = list(found.targets)
    parts: dict[str, tuple[str, list[float]]] = {
        "label noise (irreducible)": (_LABEL, []),
        f"remains at the {optimum_of(found)}": ("#b9bec7", []),
        "removed beyond that" if found.r2_linear is not None else "removed by knowledge of images": (_OPTIMUM, []),
        "removed by mean and covariance": (_LINEAR, []),
        "removed by scaling x_t": (_MULTIPLE, []),
    }
    for explained in found.targets.values():
        mean = explained.mean
        linear = mean.multiple if mean.linear is None else mean.linear
        steps = [0.0, mean.label_noise, mean.optimum, linear, mean.multiple, mean.zero]
        for (_, values), low, high in zip(parts.values(), steps, steps[1:], strict=False):
            values.append(max(high - low, 0.0) / mean.zero)
    data: list[Trace] = [
        {"type": "bar", "orientation": "h", "x": _rounded(values), "y": [html.escape(n) for n in names], "name": name,
         "marker": {"color": colour}, "hovertemplate": "%{x:.2%}<extra>" + name + "</extra>"}
        for name, (colour, values) in parts.items() if any(values)
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "xaxis": {**_axis("share of the zero-prediction loss"), "tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "height": 190 + 34 * len(names),
    }
    caption = (
        "Each bar is the loss of predicting zero. From the right: what scaling x_t by the best factor at each time "
        "removes, what a linear denoiser removes beyond that, and what requires more. The rest is irreducible. "
    )
    if found.images is not None:
        caption += (
            f"The part that requires more than a linear denoiser is measured on {found.images:,} images: some of it is "
            "knowledge of images, some is memorisation of these."
        )
    return Figure("shares", "What of the loss can be learned, and by what", caption, [Variant("shares", data, layout)])


def explained_noise(found: "Explanation") -> Figure:
    """R^2 of eps over log-SNR."""
    data = _band(found.log_snr, found.r2, found.r2_stderr, optimum_of(found), _OPTIMUM)
    if found.r2_linear is not None:
        data.append(_line(found.log_snr, found.r2_linear, "best linear denoiser", _LINEAR, dash="dash"))
    data.append(_line(found.log_snr, found.r2_multiple, "best multiple of x_t", _MULTIPLE, dash="dot"))
    axes = {"xaxis": _axis(_LOG_SNR), "yaxis": {**_axis("share of eps explained (R^2)"), "range": [-0.02, 1.02]}}
    caption = (
        "How much of the noise can be predicted from x_t. On the left x_t is nearly all noise, and a multiple of it is "
        "enough. A line above that of the multiple uses knowledge of images: what does not look like an image is "
        "noise. On the right the little noise is hard to distinguish from the image. "
    )
    if found.images is None:
        caption += "No network can exceed the optimum."
    else:
        caption += (
            f"The optimum is that of these {found.images:,} images: on the right it recognises the image, which "
            "determines the noise exactly. No network can do that on new images; for those the optimum lies between "
            "the two upper lines."
        )
    return Figure(
        "r2", "How much of the noise can be predicted", f"{caption}{_shading(found)}", [Variant("r2", data, axes)]
    )


def losses(found: "Explanation") -> Figure:
    """For each target, the loss of each prediction at each log-SNR."""
    variants: list[Variant] = []
    for name, explained in found.targets.items():
        curve = explained.curve
        others = [
            ("zero prediction", curve.zero, _ZERO, "solid"),
            ("best multiple of x_t", curve.multiple, _MULTIPLE, "dot"),
        ]
        if curve.linear is not None:
            others.append(("best linear denoiser", curve.linear, _LINEAR, "dash"))
        if any(curve.label_noise):
            others.append(("label noise", curve.label_noise, _LABEL, "longdashdot"))
        positive = [y for _, values, _, _ in others for y in values if y > 0]
        low, high = min(positive) / 3, max(positive) * 2
        data = _band(found.log_snr, curve.optimum, curve.stderr, optimum_of(found), _OPTIMUM, low)
        data += [_line(found.log_snr, values, label, colour, dash, low) for label, values, colour, dash in others]
        y = {**_axis(f"loss of {name}", "log"), "range": [math.log10(low), math.log10(high)]}
        variants.append(Variant(name, data, {"xaxis": _axis(_LOG_SNR), "yaxis": y}))
    caption = (
        "Expected loss per dimension at each noise level, in the space of the loss: the height of a curve is the "
        "scale of the target, the distance between grey and blue what can be learned. Where label noise lies on the "
        "optimum, what remains is irreducible."
    )
    return Figure("losses", "Loss by noise level", f"{caption}{_shading(found)}", variants)


def weights(found: "Explanation") -> Figure:
    """The weight of each target's loss on an error in eps."""
    colours = target_colours(list(found.targets))
    data = [
        _line(explained.weight.log_snr, explained.weight.weight, name, colours[name], floor=1e-9)
        for name, explained in found.targets.items()
    ]
    axes = {"xaxis": _axis(_LOG_SNR), "yaxis": _axis("weight on the eps-error", "log")}
    caption = (
        "Each loss is a weight on the same error in eps (mean 1 over times). Where a line is low, errors cost little "
        "and little will be learned; two targets with the same line differ only in what the network predicts and in "
        "label noise."
    )
    return Figure("weight", "Weight of each loss on noise levels", caption, [Variant("weight", data, axes)])


def _shading(found: "Explanation") -> str:
    return " Shaded: two standard errors of the Monte Carlo estimate." if any(found.r2_stderr) else ""


def _line(
    xs: Sequence[float], ys: Sequence[float], name: str, colour: str, dash: str = "solid", floor: float | None = None
) -> Trace:
    """A line of what lies above `floor`, if one is given: a logarithmic axis shows no more."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if floor is None or y > floor]
    return {"x": _rounded(x for x, _ in points), "y": _rounded(y for _, y in points), "name": html.escape(name),
            "mode": "lines", "line": {"color": colour, "width": 2.2, "dash": dash}}  # fmt: skip


def _band(
    xs: Sequence[float],
    ys: Sequence[float],
    stderrs: Sequence[float],
    name: str,
    colour: str,
    floor: float | None = None,
) -> list[Trace]:
    """A line with two standard errors around it, where they are not zero."""
    line = _line(xs, ys, name, colour, floor=floor)
    if not any(stderrs):
        return [line]
    points = [(x, y, 2 * e) for x, y, e in zip(xs, ys, stderrs, strict=True) if floor is None or y > floor]
    edge = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip",
            "x": _rounded(x for x, _, _ in points)}  # fmt: skip
    below = [y - e if floor is None else max(y - e, floor) for _, y, e in points]
    return [
        {**edge, "y": _rounded(below)},
        {**edge, "y": _rounded(y + e for _, y, e in points), "fill": "tonexty", "fillcolor": "rgba(43,131,198,0.25)"},
        line,
    ]


def _axis(title: str, kind: str = "linear") -> dict[str, Any]:
    return {"title": {"text": html.escape(title)}, "type": kind} | ({"dtick": 1} if kind == "log" else {})


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
