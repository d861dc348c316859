"""A study in a terminal."""

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.report.metrics import Metric
from diffexp.report.rows import Row
from diffexp.report.summary import Cell, Summary
from diffexp.report.verdict import cautions, failures, headline, number, progress, question


def print_summary(summary: Summary, console: Console) -> None:
    """The question, the numbers, what went wrong, the verdict. Names are text, never markup."""
    console.print(Text(f"{summary.study}: {question(summary)}", style="bold"))
    console.print(Text(f"{progress(summary)}. Equal for all: {_equal(summary)}."))
    _print_tables(summary, console, "At equal learning rates" if summary.best_rate else None)
    if summary.best_rate:
        title = f"Each at its best learning rate, chosen by {summary.best_rate.chosen_by} on these same runs"
        _print_tables(summary.best_rate, console, title)
    console.print(Text(legend(summary), style="dim"))
    for sentence in [*cautions(summary), *failures(summary)]:
        console.print(Text(f"! {sentence}", style="yellow"))
    console.print(Text(headline(summary), style="bold"))


def legend(summary: Summary) -> str:
    """How the table is to be read, in one or two sentences."""
    several = summary.most_seeds > 1
    means = "Means over seeds, +- the half width of the 95 % Student-t interval."
    words = means if several else "One seed (n = 1): no confidence intervals."
    if summary.compares:
        words += f" d: difference to {summary.baseline_label}, paired by seed"
        words += "; * marks intervals without 0." if several else "."
    return words


def _print_tables(summary: Summary, console: Console, title: str | None) -> None:
    """One table, or where the terminal is narrow one of beliefs and one of samples."""
    metrics = list(summary.metrics)
    parts = [metrics]
    if console.width < 24 + 11 * len(metrics):
        parts = [[m for m in metrics if not m.of_samples], [m for m in metrics if m.of_samples]]
    for part in parts:
        if part or part is metrics:
            console.print(_table(summary, part, title))


def _table(summary: Summary, metrics: Sequence[Metric], title: str | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for key in summary.columns or ("target",):
        table.add_column(Text(key), style="bold", overflow="fold")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(Text(_heading(metric)), justify="right", overflow="fold")
    for row in summary.rows:
        cells = [_cell(summary.cell(row, metric)) for metric in metrics]
        names = [Text(name) for name in row.names(summary.columns)]
        table.add_row(*names, Text(status(row).replace(", ", "\n")), *cells)
    floors = [_floor(summary, metric) for metric in metrics]
    if any(floors):
        blank = [""] * (max(len(summary.columns), 1))
        table.add_row(Text("floor", style="dim"), *blank, *(Text(floor, style="dim") for floor in floors))
    return table


def status(row: Row) -> str:
    """The number of runs that count, and what became of the others: "2", "2, 1 diverged"."""
    others = [f"{count} {name}" for name, count in sorted(row.statuses.items()) if name != "done"]
    return ", ".join([str(len(row.done)), *others])


def _cell(cell: Cell) -> Text:
    if cell.value is None:
        return Text("-" if cell.so_far is None else f"({number(cell.so_far)})", style="dim")
    text = Text(number(cell.value.mean))
    if cell.value.half_width is not None:
        text.append(f"\n+-{cell.value.half_width:.2g}", style="dim")
    if cell.difference is not None:
        mark = "*" if cell.difference.excludes_zero else ""
        text.append(f"\nd{cell.difference.mean:+.2g}{mark}", style="cyan")
    return text


def _floor(summary: Summary, metric: Metric) -> str:
    floors = [floor for row in summary.rows if (floor := summary.cell(row, metric).floor) is not None]
    if not floors:
        return ""
    low, high = number(min(floors)), number(max(floors))
    return low if low == high else f"{low} to {high}"


def _heading(metric: Metric) -> str:
    return f"belief\n{metric.currency}" if metric.currency else metric.title.replace(" ", "\n")


def _equal(summary: Summary) -> str:
    return ", ".join(f"{key} {value}" for key, value in summary.common.items()) or "nothing"


def as_text(summary: Summary, width: int = 110) -> str:
    """The same without colours."""
    buffer = io.StringIO()
    print_summary(summary, Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue()
