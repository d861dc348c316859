"""The results of `diffexp explain`, in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.explain import text
from diffexp.runs.metric_keys import NOISE_REGIONS_TEXT

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation


def print_explanation(found: "Explanation", settings: Mapping[str, str], console: Console) -> None:
    """The title, the table, a paragraph per target, and two common questions."""
    plain = text.is_plain(settings)
    console.print(Text(text.question(found, settings), style="bold"))
    console.print(Text(text.setting(found, settings), style="dim"))
    console.print(Text(text.about_the_optimum(found)))
    head, rows = text.table(found)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, heading in enumerate(head):
        table.add_column(Text(heading), justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(text.legend(found), style="dim"))
    for name in found.targets:
        console.print(Text.assemble("\n", (name, "bold")))
        console.print(Text(" ".join(text.of_target(name, found, plain))))
    for title, sentences in ((text.PREDICTABLE, text.predictable(found)), (text.FASTER, text.faster(found, plain))):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(Text("\n".join(sentences)))
    console.print(Text(f"\n{NOISE_REGIONS_TEXT}", style="dim"))
