"""What could be learned, in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.explain import text as words

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation


def print_explanation(found: "Explanation", settings: Mapping[str, str], console: Console) -> None:
    """The question, the table, a paragraph per target, and the two questions that people ask."""
    plain = words.is_plain(settings)
    console.print(Text(words.question(found, settings), style="bold"))
    console.print(Text(words.setting(found, settings), style="dim"))
    console.print(Text(words.whose_floor(found)))
    head, rows = words.table(found)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, heading in enumerate(head):
        table.add_column(Text(heading), justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(words.legend(found), style="dim"))
    for name in found.targets:
        console.print(Text.assemble("\n", (name, "bold")))
        console.print(Text(" ".join(words.of_target(name, found, plain))))
    for title, sentences in ((words.PREDICTABLE, words.predictable(found)), (words.FASTER, words.faster(found, plain))):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(Text("\n".join(sentences)))
    console.print(Text(f"\n{words.LEVELS}", style="dim"))
