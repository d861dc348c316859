"""The grids of samples, side by side."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

from diffexp.report.links import link, run_anchor
from diffexp.report.summary import Summary

MOST_IMAGE_BYTES = 6 * 2**20
"""Grids are embedded up to so many bytes in all; the others are linked."""

_Picture: TypeAlias = tuple[str, str | None, Path]
"""Label, anchor of the run, file."""


@dataclass
class _Room:
    """Bytes that pictures may still take in the page."""

    left: int = MOST_IMAGE_BYTES


def samples(summary: Summary, folder: Path) -> Iterator[str]:
    """The section that shows them: real images first, and the same without clipping in a fold."""
    drawn = _pictures(summary, "final.png")
    if not drawn:
        return
    yield '<h2 id="samples">Samples</h2>'
    yield (
        "<p>All grids of one seed start from the same noise, place by place; what differs is "
        "what the network was asked for. Real images are first.</p>"
    )
    real = next((file for run in summary.runs if (file := run.file("samples/data.png"))), None)
    room = _Room()
    yield from _grids([("real images", None, real)] if real else [], drawn, folder, room)
    if unclipped := _pictures(summary, "final_unclipped.png"):
        yield "<details><summary>The same samples without clamping the beliefs about x0 to [-1, 1]</summary>"
        yield from _grids([], unclipped, folder, room)
        yield "</details>"


def _grids(first: list[_Picture], pictures: list[_Picture], folder: Path, room: _Room) -> Iterator[str]:
    yield '<div class="grids">'
    for label, anchor, file in [*first, *pictures]:
        data = file.read_bytes() if file.stat().st_size <= room.left else b""
        caption = f'<a href="#{anchor}">{escape(label)}</a>' if anchor else escape(label)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            room.left -= len(data)
            uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            yield f'<figure><a href="{link(file, folder)}" title="the file itself">'
            yield f'<img alt="{escape(label)}" src="{uri}"></a><figcaption>{caption}</figcaption></figure>'
        else:
            why = "not embedded, to keep the page small" if not data else "not a PNG file"
            where = f'<a href="{link(file, folder)}">{escape(file.name)}</a>'
            yield f"<figure><figcaption>{caption}: {where} ({why})</figcaption></figure>"
    yield "</div>"


def _pictures(summary: Summary, name: str) -> list[_Picture]:
    """Each row's grid of that name, of its first seed that has one."""
    found: list[_Picture] = []
    for row in summary.rows:
        run, file = next(((run, file) for run in row.runs if (file := run.file(f"samples/{name}"))), (None, None))
        if run and file:
            found.append((f"{row.label}, seed {run.seed}", run_anchor(run), file))
    return found
