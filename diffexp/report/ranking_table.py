"""The page's table of standings: the best row, those on its level, and those clearly behind."""

from collections.abc import Iterator, Sequence
from html import escape

from diffexp.report.format import number
from diffexp.report.links import row_anchor
from diffexp.report.ranking import Standing, sections, standings, unranked
from diffexp.report.rows import Row
from diffexp.report.summary import Summary
from diffexp.report.verdict import distance

MOST_SHOWN = 8


def rankings(summary: Summary) -> Iterator[str]:
    """One table for each part of the study that can be ranked."""
    for name, part in sections(summary):
        found = standings(part)
        if not found:
            continue
        yield f"<h3>{escape(name)}</h3>" if name else ""
        one_seed = all(standing.seeds <= 1 for standing in found)
        heads = (
            "in",
            "best",
            "equal" if one_seed else "not told apart from it",
            "worse" if one_seed else "clearly worse",
        )
        columns = "".join(f'<th class="name" scope="col">{head}</th>' for head in heads)
        yield f'<div class="wide" tabindex="0"><table class="verdicts"><thead><tr>{columns}</tr></thead><tbody>'
        yield from (_line(standing, heads) for standing in found)
        yield "</tbody></table></div>"
    yield from (f'<p class="small">{escape(note)}</p>' for note in unranked(summary))


def _line(standing: Standing, heads: Sequence[str]) -> str:
    best = _one(standing.best, number(standing.values[standing.best.name]))
    cells = [best, _rows(standing, standing.level), _rows(standing, standing.behind)]
    told = "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(heads[1:], cells, strict=True))
    return f'<tr><th class="name" scope="row">{escape(standing.metric.title)}</th>{told}</tr>'


def _rows(standing: Standing, rows: Sequence[Row]) -> str:
    shown = [_one(row, distance(standing, row)) for row in rows[:MOST_SHOWN]]
    shown += [f"and {len(rows) - MOST_SHOWN} more"] if len(rows) > MOST_SHOWN else []
    return ", ".join(shown) or "none"


def _one(row: Row, told: str) -> str:
    """A row and a number that leads to its runs, on one line."""
    link = f'<a href="#{row_anchor(row)}">{escape(told)}</a>'
    return f'<span class="one">{escape(row.phrase)} {link}</span>'
