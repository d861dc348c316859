"""A study as CSV, Markdown and JSON."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from diffexp.io.jsonio import strict_json
from diffexp.report.facts import choosing, facts
from diffexp.report.failures import cautions, failures
from diffexp.report.format import interval, number
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean
from diffexp.report.summary import Summary
from diffexp.report.terminal import status
from diffexp.report.verdict import headline, progress, question
from diffexp.runs.study import Run


def to_json(summary: Summary) -> str:
    """{"runs": [...], "summary": [...]}, and "best_rate" after a learning-rate sweep; strict JSON.

    A summary row has the choices, metric, n, mean, low and high (null for one seed), the floor if there is
    one, and the paired difference to the baseline {baseline, mean, low, high, n, p, p_holm}, null where there
    is none.
    """
    document: dict[str, Any] = {
        "study": summary.study,
        "runs": [_run(run, state) for run, state in zip(summary.runs, summary.states, strict=True)],
        "summary": list(_records(summary)),
    }
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


def to_markdown(summary: Summary) -> str:
    """The question, the table, what went wrong and the verdict, to paste into notes or an issue."""
    parts = [
        f"# {_plain(summary.study)}",
        _plain(question(summary)),
        "\n".join(f"- {_plain(sentence)}" for sentence in headline(summary)),
        _plain(" ".join([f"{progress(summary)}.", *facts(summary)])),
    ]
    parts.append(_markdown_table(summary))
    if summary.best_rate:
        parts.append(f"Each at its best learning rate. {_plain(choosing(summary.best_rate))}")
        parts.append(_markdown_table(summary.best_rate))
    reading = "Means over n seeds, with their 95 % Student-t interval where there are several."
    if summary.compares:
        reading += f" d: difference to {_plain(summary.baseline_label)}, paired by seed."
    parts.append(reading)
    parts += [f"- {_plain(sentence)}" for sentence in [*failures(summary), *cautions(summary)]]
    equal = [f"{_plain(key)} {_plain(value)}" for key, value in summary.common.items()]
    parts.append(f"Equal for all: {', '.join(equal) or 'nothing'}.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(summary: Summary) -> str:
    header = [*(summary.columns or ("target",)), "n", *(metric.title for metric in summary.metrics)]
    lines = [_line(header), _line(["---"] * len(header))]
    for row in summary.rows:
        lines.append(
            _line(
                [
                    *row.names(summary.columns),
                    status(row),
                    *(_cell(summary, row, metric.key) for metric in summary.metrics),
                ]
            )
        )
    return "\n".join(lines)


def _cell(summary: Summary, row: Row, metric: str) -> str:
    cell = summary.cell(row, metric)
    if cell.value is None:
        return "-" if cell.so_far is None else f"({number(cell.so_far)} so far)"
    n, pairs = cell.value.n, cell.difference.n if cell.difference else cell.value.n
    value = interval(cell.value) + (f" (n = {n})" if n != len(row.done) else "")
    difference = f"; d {interval(cell.difference)}" if cell.difference else ""
    return value + difference + (f" (n = {pairs})" if pairs != n else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is and cannot read as a table's edge or as HTML."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


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


def _mean(mean: Mean | None) -> dict[str, int | float | None]:
    if mean is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": mean.n, "mean": mean.mean, "low": mean.low, "high": mean.high}


def _run(run: Run, state: str) -> dict[str, Any]:
    return {"directory": f"{run.name}/{run.path.name}", "status": state, **{
        key: value for key, value in run.record.items() if key not in ("status", "directory", "final")
    }, "seed": run.seed, "final": run.final}  # fmt: skip
