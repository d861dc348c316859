"""A study as CSV and JSON."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from diffexp.io.jsonio import strict_json
from diffexp.report.evaluations import SamplerRow, sampler_rows, weights_rows
from diffexp.report.statistics import Mean
from diffexp.report.summary import Summary
from diffexp.runs.study import Run


def to_json(summary: Summary) -> str:
    """{"runs": [...], "summary": [...], "evaluations": [...]} as strict JSON, and "best_rate" after a rate sweep.

    A summary row has the choices, metric, n, mean, low and high (null for one seed), the floor if there is
    one, and the paired difference to the baseline {baseline, mean, low, high, n, p, p_holm}, null where there
    is none. An evaluation has the choices, sampler (the weights, where nfe is null), nfe, metric, n, mean, low, high
    and floor; each run has its own under "evaluations".
    """
    document: dict[str, Any] = {
        "study": summary.study,
        "runs": [_run(summary, run, state) for run, state in zip(summary.runs, summary.states, strict=True)],
        "summary": list(_records(summary)),
        "evaluations": [record for each in [*sampler_rows(summary), *weights_rows(summary)]
                        for record in _evaluation(each)],
    }  # fmt: skip
    if summary.best_rate:
        document["best_rate"] = list(_records(summary.best_rate))
        document["best_rate_chosen_by"] = summary.best_rate.chosen_by
    return strict_json(document, indent=1) + "\n"


def to_csv(summary: Summary) -> str:
    """One line per row and metric, with the same columns for every study of the same choices."""
    buffer = io.StringIO()
    choices = list(dict.fromkeys(key for row in summary.rows for key in row.choices))
    columns = [*choices, "runs", "done", "metric", "n", "mean", "low", "high", "floor", "difference",
               "difference_low", "difference_high", "difference_n", "difference_p",
               "difference_p_holm"]  # fmt: skip
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for record in _records(summary):
        flat = {
            **record["choices"],
            **{key: record[key] for key in columns if key in record and key != "difference"},
        }
        difference: dict[str, Any] = record["difference"] or {}
        for key, value in difference.items():
            flat["difference" if key == "mean" else f"difference_{key}"] = value
        writer.writerow({key: value for key, value in flat.items() if key in columns})
    return buffer.getvalue()


def _records(summary: Summary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        baseline = summary.baselines.get(row.name)
        for key in sorted({key for name, key in summary.cells if name == row.name}):
            cell = summary.cell(row, key)
            difference = None
            if cell.difference and baseline:
                difference = {"baseline": baseline.label, **_mean(cell.difference), "p": cell.difference.p,
                              "p_holm": cell.p_holm}  # fmt: skip
            yield {"choices": dict(row.choices), "runs": len(row.runs), "done": len(row.done), "metric": key,
                   **_mean(cell.value), "floor": cell.floor, "difference": difference}  # fmt: skip


def _evaluation(each: SamplerRow) -> Iterator[dict[str, Any]]:
    for key, cell in each.cells.items():
        yield {"choices": dict(each.row.choices), "sampler": each.sampler, "nfe": each.nfe, "metric": key,
               **_mean(cell.value), "floor": cell.floor}  # fmt: skip


def _mean(mean: Mean | None) -> dict[str, int | float | None]:
    if mean is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": mean.n, "mean": mean.mean, "low": mean.low, "high": mean.high}


def _run(summary: Summary, run: Run, state: str) -> dict[str, Any]:
    record = {key: value for key, value in run.record.items() if key not in ("status", "directory", "final")}
    evaluations = [vars(each) for each in summary.evaluations.get(run.path, ())]
    return {"directory": f"{run.name}/{run.path.name}", "status": state, **record, "seed": run.seed,
            "final": run.final, "evaluations": evaluations}  # fmt: skip
