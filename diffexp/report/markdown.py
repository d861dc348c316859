"""The report as Markdown, to paste into notes or an issue."""

from collections.abc import Iterator, Sequence

from diffexp.report.blocks import Block, Entry, Linked, Measured, Points, Table, TableCell, Text
from diffexp.report.format import interval, number
from diffexp.report.sections import Report
from diffexp.report.summary import Summary

#: The sections of the Markdown, in its order.
SECTIONS = ("verdict", "facts", "equal", "results", "emphasis", "samplers", "failures", "cautions")


def to_markdown(summary: Summary) -> str:
    """The question, the verdict, the tables, and what went wrong."""
    report = Report(summary)
    parts = [f"# {_plain(report.study)}", _plain(report.question)]
    for section in map(report.section, SECTIONS):
        parts += [f"## {_plain(section.title)}"] if section.title and section.blocks else []
        parts += [part for block in section.blocks for part in _block(block)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(text) if text:
            yield _plain(text)
        case Points(points):
            yield "\n".join(f"- {f'**{_plain(head)}**: ' if head else ''}{_plain(text)}" for head, text in points)
        case Table():
            if block.title:
                yield f"### {_plain(block.title)}"
            lines = [[_plain(column.title) for column in block.columns], ["---"] * len(block.columns)]
            lines += [[_cell(cell) for cell in row] for row in [*block.rows, *block.foot]]
            yield "\n".join(_line(cells) for cells in lines)
        case _:
            pass  # what only a page can show


def _cell(cell: TableCell) -> str:
    match cell:
        case Entry(text):
            return _plain(text)
        case Linked(items):
            return ", ".join(_plain(f"{words} {entry.text}".strip()) for words, entry in items) or "none"
        case Measured():
            return _measured(cell)


def _measured(measured: Measured) -> str:
    cell = measured.cell
    if cell.value is None:
        return "-" if cell.so_far is None else f"({number(cell.so_far)} so far)"
    n, pairs = cell.value.n, cell.difference.n if cell.difference else cell.value.n
    value = f"**{interval(cell.value)}**" if measured.best else interval(cell.value)
    value += f" (n = {n})" if n != measured.seeds else ""
    difference = f"; d {interval(cell.difference)}" if cell.difference else ""
    return value + difference + (f" (n = {pairs})" if pairs != n else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is and cannot read as a table's edge or as HTML."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
