"""What samples cost and are worth: the metrics of `diffexp evaluate` over network evaluations."""

import html

from diffexp.report.evaluations import SamplerRow, evaluated_metrics, sampler_rows
from diffexp.report.figures.base import Study, Trace, Variant, axis, error_bar, figure, label, rounded, value_axis
from diffexp.report.statistics import Mean
from diffexp.report.style import DASHES

CAPTION = "Mean over seeds for each target and sampler, over the network evaluations (NFE) that one sample costs."


@figure("Samplers", order=70)
def samplers(study: Study) -> tuple[str, list[Variant]]:
    lines: dict[tuple[str, str], list[SamplerRow]] = {}
    for each in sampler_rows(study.summary):
        lines.setdefault((each.row.name, each.sampler), []).append(each)
    if len({each.nfe for line in lines.values() for each in line}) < 2:
        return CAPTION, []
    variants: list[Variant] = []
    names = list(dict.fromkeys(sampler for _, sampler in lines))
    for metric in evaluated_metrics(study.summary, of_samples=True):
        data: list[Trace] = []
        for (_, sampler), line in lines.items():
            points = [(each.nfe, mean) for each in line if (mean := each.cell(metric).value)]
            means: list[Mean] = [mean for _, mean in points]
            if means:
                row = line[0].row
                name = f"{label(row)}, {html.escape(sampler)}" if len(names) > 1 else label(row)
                dash = DASHES[names.index(sampler) % len(DASHES)]
                data.append({"x": [nfe for nfe, _ in points], "y": rounded(mean.mean for mean in means),
                             "error_y": error_bar(means), "name": name, "mode": "lines+markers",
                             "line": {**study.style.line(row), "dash": dash},
                             "marker": study.style.marker(row)})  # fmt: skip
        if data:
            y = value_axis(metric.title, [value for trace in data for value in trace["y"]], ratio=10.0)
            variants.append(Variant(metric.title, data, {"xaxis": axis("NFE", "log"), "yaxis": y}))
    return CAPTION, variants
