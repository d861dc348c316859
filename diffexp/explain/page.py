"""explain.html: what could be learned, for somebody who asks why noise can be predicted and whose loss falls faster."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from diffexp.explain import text as words
from diffexp.explain.figures import all_figures
from diffexp.report.html import document, figure_blocks

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation


def write_page(found: "Explanation", settings: Mapping[str, str], command: str) -> str:
    """The page as text.

    Args:
        found: What is told.
        settings: Choices of data, schedule, times, weighting and space.
        command: Repeats it.
    """
    figures = all_figures(found)
    plain = words.is_plain(settings)
    body = [
        f"<h1>{escape(words.question(found, settings))}</h1>",
        f'<p class="soft">{escape(words.setting(found, settings))}.</p>',
        f"<p>{escape(words.whose_floor(found))}</p>",
        *_table(found),
        *_section(words.PREDICTABLE, words.predictable(found)),
        *_section(words.FASTER, words.faster(found, plain)),
        *figure_blocks(figures),
        "<h2>Target by target</h2>",
        *(f"<p><b>{escape(name)}.</b> {escape(' '.join(words.of_target(name, found, plain)))}</p>"
          for name in found.targets),
        f'<p class="soft">{escape(words.LEVELS)}</p>',
        "<h2>The command</h2>",
        f"<pre>{escape(command)}</pre>",
    ]  # fmt: skip
    return document(words.question(found, settings), "\n".join(body), figures)


def _table(found: "Explanation") -> Iterator[str]:
    head, rows = words.table(found)
    yield '<div class="wide summary"><table><thead><tr>'
    yield "".join(
        f'<th{_name(place)} style="white-space:normal">{escape(text)}</th>' for place, text in enumerate(head)
    )
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = "".join(f"<td{_name(place)}>{escape(text)}</td>" for place, text in enumerate(row))
        yield f"<tr>{cells}</tr>"
    yield f'</tbody></table></div><p class="small">{escape(words.legend(found))}</p>'


def _name(place: int) -> str:
    return "" if place else ' class="name"'


def _section(title: str, sentences: Sequence[str]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2>"
    yield from (f"<p>{escape(sentence)}</p>" for sentence in sentences)
