"""A study in a terminal."""

import io

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.io.redact import printable
from diffexp.report.facts import choosing, facts
from diffexp.report.failures import cautions, failures
from diffexp.report.format import number
from diffexp.report.metrics import Metric
from diffexp.report.rows import Row
from diffexp.report.states import state_counts
from diffexp.report.summary import Cell, Summary
from diffexp.report.verdict import headline, progress, question

_FOR_NUMBERS = 24
"""Columns of text to be kept for the count and one metric."""
_WIDE = Console(width=10_000)


def print_summary(summary: Summary, console: Console) -> None:
    """The question, the numbers, what went wrong, the verdict. Names are text, never markup."""
    console.print(_text(f"{summary.study}: {question(summary)}", style="bold"))
    console.print(_text(" ".join([f"{progress(summary)}.", *facts(summary), f"Equal for all: {_equal(summary)}."])))
    _print_tables(summary, console, "At equal learning rates" if summary.best_rate else None)
    if summary.best_rate:
        _print_tables(summary.best_rate, console, "Each at its best learning rate")
        console.print(_text(choosing(summary.best_rate), style="dim"))
    if told := legend(summary):
        console.print(_text(told, style="dim"))
    for sentence in [*cautions(summary), *failures(summary)]:
        console.print(_text(f"! {sentence}", style="yellow"))
    for sentence in headline(summary):
        console.print(_text(sentence, style="bold"))


def legend(summary: Summary) -> str:
    """How the table is to be read, in a few sentences; "" where it holds no numbers."""
    seeds = summary.most_seeds
    told = ["Means over n seeds, +- the half width of the 95 % Student-t interval."] if seeds > 1 else []
    told += ["One seed (n = 1): no confidence intervals."] if seeds == 1 else []
    if summary.compares:
        marks = "; * marks intervals without 0" if seeds > 1 else ""
        told.append(f"d: difference to {summary.baseline_label}, paired by seed{marks}.")
    return " ".join([*told, *brackets(summary)])


def brackets(summary: Summary) -> list[str]:
    """What the numbers in brackets are, where there are any."""
    cells = [summary.cell(row, metric) for row in summary.rows for metric in summary.metrics]
    shown = any(cell.value is None and cell.so_far is not None for cell in cells)
    return ["In brackets: where a run that is not done stood; it enters no mean."] if shown else []


def _print_tables(summary: Summary, console: Console, title: str | None) -> None:
    """As many tables below each other as the width takes, each with all rows; names are never broken.

    Where the names alone would fill the width, rows are numbered and their names listed first.
    """
    keys = list(summary.columns or ("target",))
    names = [row.names(summary.columns) for row in summary.rows]
    if sum(max(map(cell_len, column)) + 1 for column in zip(keys, *names, strict=True)) > console.width - _FOR_NUMBERS:
        for number_, row in enumerate(summary.rows, start=1):
            console.print(_text(f"#{number_} {row.label}", style="bold"))
        keys, names = ["row"], [[f"#{place}"] for place in range(1, len(names) + 1)]
    columns = [_column(summary, metric) for metric in summary.metrics]
    beliefs = [column for metric, column in zip(summary.metrics, columns, strict=True) if not metric.of_samples]
    tables = [columns]
    if _width(_table(summary, keys, names, columns, title)) > console.width:
        tables = [part for kind in (beliefs, [c for c in columns if c not in beliefs])
                  for part in _fitting(summary, keys, names, kind, console.width)]  # fmt: skip
    for table in tables:
        console.print(_table(summary, keys, names, table, title))


def _fitting(
    summary: Summary, keys: list[str], names: list[list[str]], columns: list[list[Text]], width: int
) -> list[list[list[Text]]]:
    """`columns` in parts that fit side by side, at least one in each."""
    parts: list[list[list[Text]]] = []
    for column in columns:
        if parts and _width(_table(summary, keys, names, [*parts[-1], column], None)) <= width:
            parts[-1].append(column)
        else:
            parts.append([column])
    return parts


def _width(table: Table) -> int:
    return table.__rich_measure__(_WIDE, _WIDE.options).minimum


def _column(summary: Summary, metric: Metric) -> list[Text]:
    """A metric's heading, cells and floor."""
    cells = [_cell(summary.cell(row, metric)) for row in summary.rows]
    return [_text(_heading(metric)), *cells, Text(_floor(summary, metric), style="dim")]


def _table(
    summary: Summary, keys: list[str], names: list[list[str]], columns: list[list[Text]], title: str | None
) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for key in keys:
        table.add_column(_text(key), style="bold", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(column[0], justify="right", no_wrap=True)
    for place, row in enumerate(summary.rows):
        cells = [column[place + 1] for column in columns]
        table.add_row(*map(_text, names[place]), _text(status(row).replace(", ", "\n")), *cells)
    floors = [column[-1] for column in columns]
    if any(floors):
        table.add_row(Text("floor", style="dim"), *[""] * len(keys), *floors)
    return table


def status(row: Row) -> str:
    """The number of runs that count, and what became of the others: "2", "2, 1 diverged"."""
    others = [state for state in row.states if state != "done"]
    return ", ".join([str(len(row.done)), *([state_counts(others)] if others else [])])


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
    kind = "excess" if metric.excess else "belief"
    return f"{kind}\n{metric.currency}" if metric.currency else metric.title.replace(" ", "\n")


def _equal(summary: Summary) -> str:
    return ", ".join(f"{key} {value}" for key, value in summary.common.items()) or "nothing"


def _text(words: str, style: str = "") -> Text:
    """Words of a run as they are: no markup, and nothing that a terminal obeys."""
    return Text(printable(words), style=style)


def as_text(summary: Summary, width: int = 110) -> str:
    """The same without colours."""
    buffer = io.StringIO()
    print_summary(summary, Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue()
