"""report.html: one file that explains a study without further context.

Images are data URIs, links lead into the page and to the run directories beside it. Every text that comes from a run
is escaped.
"""

import base64
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from diffexp.report.blocks import (
    Block,
    Box,
    Code,
    Column,
    Definitions,
    Entry,
    Figures,
    Fold,
    Linked,
    Measured,
    Pictures,
    Points,
    Section,
    Table,
    TableCell,
    Text,
)
from diffexp.report.format import bounds, number
from diffexp.report.html import document, figure_blocks
from diffexp.report.sections import Report
from diffexp.report.statistics import Mean
from diffexp.report.summary import Summary

#: The page's sections, in its order.
SECTIONS = ("facts", "verdict", "rankings", "failures", "results", "emphasis", "reading", "cautions", "samplers",
            "why", "figures", "samples", "settings", "runs")  # fmt: skip

MOST_IMAGE_BYTES = 6 * 2**20
"""Pictures are embedded up to so many bytes in all; the others are linked."""

_CLASSES = {"plain": "", "strong": "headline", "soft": "small", "warning": "warn"}


def write_page(summary: Summary, folder: Path) -> str:
    """The page as text, with links that are right when it lies in `folder`."""
    report = Report(summary)
    sections = [report.section(name) for name in SECTIONS]
    figures = [figure for section in sections for block in section.blocks if isinstance(block, Figures)
               for figure in block.figures]  # fmt: skip
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = _Page(folder)
    body = [
        f"<h1>{escape(report.question)}</h1>",
        f'<p class="soft">Study <b>{escape(report.study)}</b>. Written {written}.</p>',
        *(line for section in sections for line in page.section(section)),
    ]
    return document(f"{report.study}: {report.question}", "\n".join(body), figures)


class _Page:
    """Blocks as HTML.

    Attributes:
        folder: Where the page lies.
        room: Bytes that pictures may still take in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.room = folder, MOST_IMAGE_BYTES

    def section(self, section: Section) -> Iterator[str]:
        if not section.blocks:
            return
        yield f'<section id="{section.name}">'
        if section.title:
            yield f"<h2>{escape(section.title)}</h2>"
        yield from self.blocks(section.blocks)
        yield "</section>"

    def blocks(self, blocks: Sequence[Block]) -> Iterator[str]:
        for block in blocks:
            yield from self.block(block)

    def block(self, block: Block) -> Iterator[str]:
        match block:
            case Text(text, tone):
                yield f'<p class="{_CLASSES[tone]}">{escape(text)}</p>' if text else ""
            case Points(points, tone):
                yield f'<ul class="{_CLASSES[tone]}">'
                for head, text in points:
                    yield f"<li>{f'<b>{escape(head)}</b>: ' if head else ''}{escape(text)}</li>"
                yield "</ul>"
            case Table():
                yield from _table(block)
            case Definitions(entries):
                items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries)
                yield f'<dl class="settings">{items}</dl>'
            case Code(text):
                yield f"<pre>{escape(text)}</pre>"
            case Figures(figures):
                yield from figure_blocks(figures)
            case Pictures(pictures):
                yield '<div class="grids">'
                yield from (self._picture(label, anchor, file) for label, anchor, file in pictures)
                yield "</div>"
            case Fold():
                yield f"<details{_id(block.anchor)}><summary>{_mark(block.colour)}<b>{escape(block.title)}</b> "
                yield f'<span class="soft">{escape(block.note)}</span></summary>'
                yield from self.blocks(block.blocks)
                yield "</details>"
            case Box():
                yield f'<div class="run"{_id(block.anchor)}><h4>{escape(block.title)} '
                yield f'<a class="small" href="{self._link(block.file)}">{escape(block.file.name)}</a></h4>'
                yield from self.blocks(block.blocks)
                yield "</div>"

    def _picture(self, label: str, anchor: str, file: Path) -> str:
        data = file.read_bytes() if file.stat().st_size <= self.room else b""
        caption = f'<a href="#{anchor}">{escape(label)}</a>' if anchor else escape(label)
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            why = "not embedded, to keep the page small" if not data else "not a PNG file"
            link = f'<a href="{self._link(file)}">{escape(file.name)}</a>'
            return f"<figure><figcaption>{caption}: {link} ({why})</figcaption></figure>"
        self.room -= len(data)
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<a href="{self._link(file)}" title="the file itself"><img alt="{escape(label)}" src="{uri}"></a>'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"

    def _link(self, file: Path) -> str:
        """A relative link; "./" first, so that no name can be taken for a scheme."""
        relative = Path(os.path.relpath(file.absolute(), self.folder.absolute())).as_posix()
        return escape("./" + quote(relative, safe="/="))


def _table(table: Table) -> Iterator[str]:
    wordy = any(column.kind == "words" for column in table.columns)
    if table.title:
        yield f"<h3>{escape(table.title)}</h3>"
    yield "" if wordy else '<p class="small hint">The table scrolls sideways.</p>'
    yield f'<div class="wide {"verdicts" if wordy else "summary"}" tabindex="0"><table><thead><tr>'
    yield from (_head(column) for column in table.columns)
    yield "</tr></thead><tbody>"
    yield from (_row(table.columns, row) for row in table.rows)
    yield "</tbody>"
    if table.foot:
        yield "<tfoot>"
        yield from (_row(table.columns, row) for row in table.foot)
        yield "</tfoot>"
    yield "</table></div>"


def _head(column: Column) -> str:
    """A heading, of a metric on two lines."""
    title = escape(column.title)
    if column.kind == "number":
        title = title.replace(", ", ",<br>") if ", " in title else title.replace(" ", "<br>", 1)
    title = f'<a href="#{column.anchor}">{title}</a>' if column.anchor else title
    note = f"<br><small>{escape(column.note)}</small>" if column.note else ""
    return f'<th{_kind(column)} scope="col">{title}{note}</th>'


def _row(columns: Sequence[Column], cells: Sequence[TableCell]) -> str:
    html = [f'<th class="name" scope="row">{_cell(cells[0])}</th>']
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        kind = ' class="best"' if isinstance(cell, Measured) and cell.best else _kind(column)
        head = f' data-head="{escape(column.title)}"' if column.kind == "words" else ""
        text = _cell(cell).replace(", ", ",<br>") if column.kind == "count" else _cell(cell)
        html.append(f"<td{kind}{head}>{text}</td>")
    return f"<tr>{''.join(html)}</tr>"


def _kind(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind in ("name", "words") else ""


def _cell(cell: TableCell) -> str:
    match cell:
        case Entry():
            return _mark(cell.colour) + _linked(cell.text, cell.anchor)
        case Linked(items):
            shown = [f'<span class="one">{escape(words)} {_linked(e.text, e.anchor)}</span>' for words, e in items]
            return ", ".join(shown) or "none"
        case Measured():
            return _measured(cell)


def _measured(measured: Measured) -> str:
    cell, anchor = measured.cell, measured.anchor
    if cell.value is None:
        so_far = cell.so_far
        return "-" if so_far is None else f'{_linked(f"({number(so_far)})", anchor)}<span class="sub">so far</span>'
    parts = [_linked(number(cell.value.mean), anchor), _scatter(cell.value, anchor, measured.seeds)]
    if cell.difference:
        mark = " *" if cell.difference.excludes_zero else ""
        parts.append(f'<span class="sub d">d {_linked(number(cell.difference.mean), anchor)}{mark}</span>')
        parts.append(_scatter(cell.difference, anchor, cell.value.n))
    return "".join(parts)


def _scatter(mean: Mean, anchor: str, n: int) -> str:
    """The interval, and the number of seeds where it is not the `n` that the reader has seen already."""
    parts = [] if mean.low is None else [bounds(mean)]
    parts += [] if mean.n == n else [f"n = {mean.n}"]
    return f'<span class="sub">{_linked(", ".join(parts), anchor)}</span>' if parts else ""


def _linked(text: str, anchor: str) -> str:
    return f'<a href="#{anchor}">{escape(text)}</a>' if anchor and text else escape(text)


def _mark(colour: str) -> str:
    return f'<span class="mark" style="background:{colour}"></span>' if colour else ""


def _id(anchor: str) -> str:
    return f' id="{anchor}"' if anchor else ""
