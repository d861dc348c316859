"""The report in a terminal."""

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from diffexp.io.redact import printable
from diffexp.report.blocks import Block, Column, Entry, Linked, Measured, Points, Table, TableCell, Text
from diffexp.report.format import number
from diffexp.report.sections import Report
from diffexp.report.summary import Summary

#: The terminal's sections, in its order: what a reader sees without scrolling back comes last.
SECTIONS = ("facts", "equal", "results", "samplers", "cautions", "failures", "verdict")

_FOR_NUMBERS = 24
"""Columns of text to be kept for the count and one metric."""
_WIDE = Console(width=10_000)
_STYLES = {"plain": "", "strong": "bold", "soft": "dim", "warning": "yellow"}


def print_summary(summary: Summary, console: Console) -> None:
    """The question, the numbers, what went wrong, the verdict. Names are text, never markup."""
    report = Report(summary)
    console.print(_text(f"{report.study}: {report.question}", style="bold"))
    for section in map(report.section, SECTIONS):
        for block in section.blocks:
            _print(block, console)


def as_text(summary: Summary, width: int = 110) -> str:
    """The same without colours."""
    buffer = io.StringIO()
    print_summary(summary, Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue()


def _print(block: Block, console: Console) -> None:
    match block:
        case Text(text, tone) if text:
            console.print(_text(text, _STYLES[tone]))
        case Points(points, tone):
            mark = "! " if tone == "warning" else ""
            for head, text in points:
                console.print(_text(f"{mark}{f'{head}: ' if head else ''}{text}", _STYLES[tone]))
        case Table():
            _print_table(block, console)
        case _:
            pass  # what only a page can show


def _print_table(table: Table, console: Console) -> None:
    """As many tables below each other as the width takes, each with all rows; names are never broken.

    Where the names alone would fill the width, rows are numbered and their names listed first.
    """
    names = [place for place, column in enumerate(table.columns) if column.kind == "name"]
    if sum(_width_of(table, place) + 1 for place in names) > console.width - _FOR_NUMBERS:
        for place, label in enumerate(table.labels, start=1):
            console.print(_text(f"#{place} {label}", style="bold"))
        table = _numbered(table, set(names))
    head = [place for place, column in enumerate(table.columns) if column.kind in ("name", "count")]
    numbers = [place for place in range(len(table.columns)) if place not in head]
    parts = [numbers]
    if _fits(table, [*head, *numbers], console.width) is False:
        groups = dict.fromkeys(table.columns[place].group for place in numbers)
        parts = [part for group in groups
                 for part in _fitting(table, head, [p for p in numbers if table.columns[p].group == group],
                                      console.width)]  # fmt: skip
    for part in parts:
        console.print(_rich(table, [*head, *part], table.title or None))


def _numbered(table: Table, names: set[int]) -> Table:
    """The table with one column of numbers in place of those that name its rows."""

    def line(cells: Sequence[TableCell], first: TableCell) -> list[TableCell]:
        return [first, *(cell for place, cell in enumerate(cells) if place not in names)]

    columns = [Column("row", kind="name"), *(c for place, c in enumerate(table.columns) if place not in names)]
    rows = [line(row, Entry(f"#{place}")) for place, row in enumerate(table.rows, start=1)]
    return Table(columns, rows, foot=[line(row, row[0]) for row in table.foot], title=table.title)


def _fitting(table: Table, head: list[int], places: list[int], width: int) -> list[list[int]]:
    """`places` in parts that fit side by side, at least one in each."""
    parts: list[list[int]] = []
    for place in places:
        if parts and _fits(table, [*head, *parts[-1], place], width):
            parts[-1].append(place)
        else:
            parts.append([place])
    return parts


def _fits(table: Table, places: Sequence[int], width: int) -> bool:
    return _rich(table, places, None).__rich_measure__(_WIDE, _WIDE.options).minimum <= width


def _width_of(table: Table, place: int) -> int:
    cells = [_cell(row[place]).plain for row in [*table.rows, *table.foot]]
    return max(map(cell_len, [table.columns[place].title, *cells]))


def _rich(table: Table, places: Sequence[int], title: str | None) -> RichTable:
    """The columns at `places`."""
    rich = RichTable(
        title=None if title is None else _text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in (table.columns[place] for place in places):
        name = column.kind == "name"
        heading = _text(column.short or column.title)
        rich.add_column(heading, style="bold" if name else "", justify="left" if name else "right", no_wrap=True)
    for row in table.rows:
        rich.add_row(*(_cell(row[place]) for place in places))
    for row in table.foot:
        rich.add_row(*(_cell(row[place]) for place in places), style="dim")
    return rich


def _cell(cell: TableCell) -> RichText:
    match cell:
        case Entry(text):
            return _text(text)
        case Linked(items):
            return _text(", ".join(f"{words} {entry.text}".strip() for words, entry in items) or "none")
        case Measured():
            return _measured(cell)


def _measured(measured: Measured) -> RichText:
    cell = measured.cell
    if cell.value is None:
        return RichText("-" if cell.so_far is None else f"({number(cell.so_far)})", style="dim")
    text = RichText(number(cell.value.mean), style="bold" if measured.best else "")
    if cell.value.half_width is not None:
        text.append(f"\n+-{cell.value.half_width:.2g}", style="dim")
    if cell.difference is not None:
        mark = "*" if cell.difference.excludes_zero else ""
        text.append(f"\nd{cell.difference.mean:+.2g}{mark}", style="cyan")
    return text


def _text(words: str, style: str = "") -> RichText:
    """Words of a run as they are: no markup, and nothing that a terminal obeys."""
    return RichText(printable(words), style=style)
