"""The frame of a page: one HTML file that fetches nothing, with its style, plotly.js and its figures inside."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files as resources

from diffexp.io.jsonio import strict_json
from diffexp.report.figures.base import Figure


def document(title: str, body: str, figures: Sequence[Figure]) -> str:
    """The page as text.

    Args:
        title: Plain text.
        body: HTML, with the blocks of `figure_blocks` somewhere in it.
        figures: What these blocks will show.
    """
    drawings = {f.name: [{"data": v.data, "layout": v.layout} for v in f.variants] for f in figures if f.variants}
    here = resources("diffexp.report")
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(title)}</title>\n",
            f"<style>\n{here.joinpath('page.css').read_text()}</style>\n</head>\n",
            f"<body>\n<main>\n{body}\n</main>\n",
            f"<script>{_plotly()}</script>\n" if figures else "",
            f'<script type="application/json" id="drawings">{_script_json(drawings)}</script>\n',
            f"<script>\n{here.joinpath('page.js').read_text()}</script>\n</body>\n</html>\n",
        ]
    )


def figure_blocks(figures: Sequence[Figure]) -> Iterator[str]:
    """A heading, and for each figure the place where it will be drawn, with its title, selector and caption."""
    if not figures:
        return
    yield "<h2>Figures</h2><noscript><p>The figures need JavaScript; the tables do not.</p></noscript>"
    for figure in figures:
        yield f"<figure><h3>{escape(figure.title)}</h3>"
        if len(figure.variants) > 1:
            yield '<div class="choose" role="group">'
            for index, variant in enumerate(figure.variants):
                yield (f'<button type="button" data-figure="{figure.name}" data-index="{index}" aria-pressed="false">')
                yield f"{escape(variant.name)}</button>"
            yield "</div>"
        if figure.variants:
            yield f'<div class="plot" id="plot-{figure.name}"></div>'
        yield f"<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _script_json(value: object) -> str:
    """JSON that can stand inside a script element: no text in it can close the element."""
    text = json.dumps(json.loads(strict_json(value)), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs]

    return get_plotlyjs().replace("</script", "<\\/script")
