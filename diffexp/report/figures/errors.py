"""The prediction error of each run over images seen, in each currency, and its excess where that is known."""

from diffexp.report.figures.base import Study, Trace, Variant, axis, figure, positive, rounded, run_line
from diffexp.report.metrics import ERRORS


@figure("Prediction error over images seen", order=30)
def errors(study: Study) -> tuple[str, list[Variant]]:
    variants: list[Variant] = []
    for name in ERRORS:
        data: list[Trace] = []
        legend: set[str] = set()
        for row, run, curves in study.lines:
            images, values = positive(*curves.errors[name])
            if images:
                data.append({**run_line(row, run, study.style, legend), "x": images, "y": rounded(values)})
        if data:
            axes = {"xaxis": axis("images seen"), "yaxis": axis(f"prediction error, {name}", "log")}
            variants.append(Variant(name, data, axes))
    caption = "One line per run, on the same held-out images, times and noise for all; comparable across targets."
    return caption + study.note, variants
