"""Each row's loss as a weight on the eps-error."""

from collections.abc import Mapping
from typing import Any, cast

from diffexp.io.jsonio import finite
from diffexp.report.figures.base import Study, Trace, Variant, band_axes, figure, label, positive, rounded

CAPTION = (
    "Target, loss space and weighting together amount to one weight on the squared eps-error (mean 1 over times). Rows "
    "with the same weight differ only in the prediction target; otherwise two factors changed at once."
)


@figure("Effective weight", order=50)
def weight(study: Study) -> tuple[str, list[Variant]]:
    data: list[Trace] = []
    for row in study.summary.rows:
        table = next((run.record["effective_weight"] for run in row.runs if run.record.get("effective_weight")), None)
        if not isinstance(table, Mapping):
            continue
        columns = cast(Mapping[str, Any], table)
        x, y = positive(_numbers(columns.get("log_snr")), _numbers(columns.get("weight")))
        if x:
            line = study.style.line(row, 2.2)
            data.append({"x": rounded(x), "y": rounded(y), "name": label(row), "mode": "lines", "line": line})
    return CAPTION, [Variant("weight", data, band_axes("weight on the eps-error"))] if data else []


def _numbers(value: object) -> list[float]:
    numbers = cast(list[Any], value) if isinstance(value, list) else []
    return [finite(number) or 0.0 for number in numbers[:1000]]
