"""Every seed as a dot, every mean with its interval."""

from diffexp.report.figures.base import Study, Trace, Variant, error_bar, figure, label, rounded, value_axis


@figure("Seed by seed", order=10)
def seeds(study: Study) -> tuple[str, list[Variant]]:
    summary, style = study.summary, study.style
    variants: list[Variant] = []
    for metric in summary.metrics:
        data: list[Trace] = []
        means: list[float] = []
        for row in reversed(summary.rows):
            mean, values = summary.cell(row, metric).value, row.values(metric.key)
            if mean is None:
                continue
            means.append(mean.mean)
            shared = {"mode": "markers", "showlegend": False}
            if mean.n > 1:
                pale = {**style.marker(row, 12), "opacity": 0.5}
                data.append({**shared, "x": rounded([mean.mean]), "error_x": error_bar([mean]), "y": [label(row)],
                             "marker": pale, "hovertemplate": "mean %{x}<extra></extra>"})  # fmt: skip
            data.append({**shared, "x": rounded(values.values()), "y": [label(row)] * len(values),
                         "text": [f"seed {seed}" for seed in values],
                         "marker": style.marker(row, 5 if mean.n > 1 else 9),
                         "hovertemplate": "%{text}: %{x}<extra></extra>"})  # fmt: skip
        if means:
            layout = {
                "xaxis": value_axis(metric.title, means, ratio=30.0),
                "yaxis": {"type": "category", "dtick": 1},
                "height": 130 + 26 * len(summary.rows),
            }
            variants.append(Variant(metric.title, data, layout))
    caption = "One mark per row: one seed gives no interval. Lower is better unless the table says otherwise."
    if summary.most_seeds > 1:
        caption = (
            "Small marks are seeds, large ones their mean with its 95 % Student-t interval. Lower is better unless the "
            "table says otherwise. Seeds are paired: rows are distinguished by their difference seed by seed."
        )
    return caption, variants
