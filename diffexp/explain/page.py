"""explain.html: how well the targets can be predicted, why noise can be, and why losses fall at different speeds."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from diffexp.explain import text
from diffexp.explain.figures import all_figures
from diffexp.report.html import document, figure_blocks
from diffexp.runs.metric_keys import NOISE_REGIONS_TEXT

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation


def write_page(found: "Explanation", settings: Mapping[str, str], command: str) -> str:
    """The page as text.

    Args:
        found: What is shown.
        settings: Choices of data, schedule, times, weighting and space.
        command: The command line that repeats it.
    """
    figures = all_figures(found)
    plain = text.is_plain(settings)
    body = [
        f"<h1>{escape(text.question(found, settings))}</h1>",
        f'<p class="soft">{escape(text.setting(found, settings))}.</p>',
        f"<p>{escape(text.about_the_optimum(found))}</p>",
        *_table(found),
        *_section(text.PREDICTABLE, text.predictable(found)),
        *_section(text.FASTER, text.faster(found, plain)),
        *figure_blocks(figures),
        "<h2>Target by target</h2>",
        *(f"<p><b>{escape(name)}.</b> {escape(' '.join(text.of_target(name, found, plain)))}</p>"
          for name in found.targets),
        f'<p class="soft">{NOISE_REGIONS_TEXT}</p>',
        "<h2>The command</h2>",
        f"<pre>{escape(command)}</pre>",
    ]  # fmt: skip
    return document(text.question(found, settings), "\n".join(body), figures)


def _table(found: "Explanation") -> Iterator[str]:
    head, rows = text.table(found)
    yield '<div class="wide summary"><table><thead><tr>'
    yield "".join(
        f'<th{_name(place)} style="white-space:normal">{escape(cell)}</th>' for place, cell in enumerate(head)
    )
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = "".join(f"<td{_name(place)}>{escape(cell)}</td>" for place, cell in enumerate(row))
        yield f"<tr>{cells}</tr>"
    yield f'</tbody></table></div><p class="small">{escape(text.legend(found))}</p>'


def _name(place: int) -> str:
    return "" if place else ' class="name"'


def _section(title: str, sentences: Sequence[str]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2>"
    yield from (f"<p>{escape(sentence)}</p>" for sentence in sentences)
