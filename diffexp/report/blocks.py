"""What a report is made of: sections of blocks, plain data that terminal, page and Markdown each render in their way.

Everything that is worded is worded here and above; a renderer adds form alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from diffexp.report.figures.base import Figure
from diffexp.report.summary import Cell

Tone = Literal["plain", "strong", "soft", "warning"]


@dataclass(frozen=True)
class Text:
    """A paragraph; "" is left out."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Points:
    """A list of sentences, each with what it is about, or "", before it."""

    points: Sequence[tuple[str, str]]
    tone: Tone = "plain"

    @classmethod
    def of(cls, sentences: Sequence[str], tone: Tone = "plain") -> "Points":
        return cls([("", sentence) for sentence in sentences], tone)


@dataclass(frozen=True)
class Entry:
    """Text in a table.

    Attributes:
        anchor: The id in the page that explains it; "" for none.
        colour: Of a mark before it; "" for none.
    """

    text: str
    anchor: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Linked:
    """A list in a table: words, and after each a number that leads to an anchor; "none" if there is nothing."""

    items: Sequence[tuple[str, Entry]]


@dataclass(frozen=True)
class Measured:
    """A metric in a table.

    Attributes:
        seeds: The number of seeds of every cell that has none of its own.
        best: Whether it is the best of its column.
    """

    cell: Cell
    seeds: int
    anchor: str = ""
    best: bool = False


TableCell: TypeAlias = Entry | Linked | Measured


@dataclass(frozen=True)
class Column:
    """A column's heading.

    Attributes:
        short: The same where there is little room, with line breaks.
        note: A second line in small print.
        kind: "name" or "count" for what stays in sight where a table is broken, "number", or "words".
        group: Columns of numbers of one group stay together.
        anchor: The id in the page that explains it; "" for none.
    """

    title: str
    short: str = ""
    note: str = ""
    kind: Literal["name", "count", "number", "words"] = "number"
    group: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        labels: Each row in one line, for where the columns that name it take too much room.
        foot: Rows below the others.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[TableCell]]
    labels: Sequence[str] = ()
    foot: Sequence[Sequence[TableCell]] = ()
    title: str = ""


@dataclass(frozen=True)
class Definitions:
    """Names and their values."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """A command."""

    text: str


@dataclass(frozen=True)
class Fold:
    """What is shown on demand."""

    title: str
    blocks: "Sequence[Block]"
    note: str = ""
    anchor: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Box:
    """Blocks under a small heading, with a link to a file."""

    title: str
    blocks: "Sequence[Block]"
    file: Path
    anchor: str = ""


@dataclass(frozen=True)
class Pictures:
    """Image files side by side, as (label, anchor, file)."""

    pictures: Sequence[tuple[str, str, Path]]


@dataclass(frozen=True)
class Figures:
    """Figures with their captions."""

    figures: Sequence[Figure]


Block: TypeAlias = Text | Points | Table | Definitions | Code | Fold | Box | Pictures | Figures


@dataclass(frozen=True)
class Section:
    """Blocks under a heading.

    Attributes:
        name: Its id.
        title: "" for a section without a heading.
    """

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple[Block, ...])
