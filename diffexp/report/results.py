"""The page's table of results, each number linked to its runs, and how to read it."""

from collections.abc import Iterator
from html import escape

from diffexp.report.facts import sampled_with
from diffexp.report.failures import cautions
from diffexp.report.format import bounds, number
from diffexp.report.links import row_anchor
from diffexp.report.metrics import Metric
from diffexp.report.ranking import ranked, sections
from diffexp.report.rows import Row
from diffexp.report.statistics import Mean
from diffexp.report.style import Look
from diffexp.report.summary import Cell, Summary
from diffexp.report.terminal import brackets, status


def results_table(summary: Summary, style: Look) -> Iterator[str]:
    yield f'<p class="small">{escape(beside(summary))}</p><p class="small hint">The table scrolls sideways.</p>'
    yield '<div class="wide summary" tabindex="0"><table><thead><tr>'
    keys, sampler = summary.columns or ("target",), sampled_with(summary)
    yield "".join(f'<th class="name" scope="col">{escape(key)}</th>' for key in keys)
    yield '<th scope="col">seeds done</th>'
    for metric in summary.metrics:
        up = ", higher is better" if metric.higher_is_better else ""
        by = f"<br><small>{escape(sampler)}</small>" if metric.of_samples and sampler else ""
        yield f'<th scope="col"><a href="#reading">{_broken(metric.title + up)}</a>{by}</th>'
    yield "</tr></thead><tbody>"
    leaders = {
        (metric.key, rows[0].name)
        for _, part in sections(summary)
        for metric in part.metrics
        if (rows := ranked(part, metric))
    }
    for row in summary.rows:
        swatch = f'<span class="mark" style="background:{style.colours[row.name]}"></span>'
        names = [row.choices.get(key, "-") for key in keys] if row.choices else [row.label, *[""] * (len(keys) - 1)]
        anchor = row_anchor(row)
        link = f'<a href="#{anchor}">{escape(names[0])}</a>'
        yield f'<tr><th class="name" scope="row">{swatch}{link}</th>'
        yield "".join(f'<td class="name">{escape(name)}</td>' for name in names[1:])
        yield f'<td><a href="#{anchor}">{escape(status(row)).replace(", ", ",<br>")}</a></td>'
        for metric in summary.metrics:
            kind = ' class="best"' if (metric.key, row.name) in leaders else ""
            yield f"<td{kind}>{_cell(summary.cell(row, metric), anchor, len(row.done))}</td>"
        yield "</tr>"
    yield "</tbody>"
    yield from _floors(summary, len(keys))
    yield "</table></div>"


def _cell(cell: Cell, anchor: str, n: int) -> str:
    if cell.value is None:
        if cell.so_far is None:
            return "-"
        return f'<a href="#{anchor}">({number(cell.so_far)})</a><span class="sub">so far</span>'
    parts = [f'<a href="#{anchor}">{number(cell.value.mean)}</a>']
    parts.append(_scatter(cell.value, anchor, n))
    if cell.difference:
        mark = " *" if cell.difference.excludes_zero else ""
        parts.append(f'<span class="sub d">d <a href="#{anchor}">{number(cell.difference.mean)}</a>{mark}</span>')
        parts.append(_scatter(cell.difference, anchor, cell.value.n))
    return "".join(parts)


def _scatter(mean: Mean, anchor: str, n: int) -> str:
    """The interval, and the number of seeds where it is not the `n` that the reader has seen already."""
    told = [] if mean.low is None else [bounds(mean)]
    told += [] if mean.n == n else [f"n = {mean.n}"]
    return f'<span class="sub"><a href="#{anchor}">{", ".join(told)}</a></span>' if told else ""


def _floors(summary: Summary, keys: int) -> Iterator[str]:
    """The last lines: what real images score, and what an answer without any knowledge costs."""
    floors = [[(floor, row) for row in summary.rows if (floor := summary.cell(row, metric).floor) is not None]
              for metric in summary.metrics]  # fmt: skip
    zeros = [_zeros(summary, metric) for metric in summary.metrics]
    lines = [("floor", floors), ("eps = 0", zeros)]
    if not any(floors) and not any(zeros):
        return
    yield "<tfoot>"
    for name, found in lines:
        if any(found):
            yield f'<tr><th class="name" scope="row">{name}</th><td colspan="{keys}"></td>'
            yield "".join(_range(values) for values in found)
            yield "</tr>"
    yield "</tfoot>"


def _zeros(summary: Summary, metric: Metric) -> list[tuple[float, Row]]:
    """Known of one row for all that are comparable with it; left out where it is not known for every group."""
    found: list[tuple[float, Row]] = []
    for group in summary.groups.values():
        known = [(zero, row) for row in group if (told := summary.training.get(row.name))
                 and (zero := told.zero.get(metric.key)) is not None]  # fmt: skip
        if not known:
            return []
        found.append(known[0])
    return found


def _range(found: list[tuple[float, Row]]) -> str:
    if not found:
        return "<td></td>"
    (low, row), (high, _) = min(found, key=lambda f: f[0]), max(found, key=lambda f: f[0])
    shown = number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"
    return f'<td><a href="#{row_anchor(row)}">{shown}</a></td>'


def beside(summary: Summary) -> str:
    """How to read a cell, said next to the table."""
    several = summary.most_seeds > 1
    told = ["Means over the finished seeds, with their 95 % Student-t interval."] if several else []
    told += ["One finished seed per row: no confidence interval can be given."] if summary.most_seeds == 1 else []
    if summary.compares:
        how = ", paired seed by seed, with its own interval; * marks an interval without 0" if several else ""
        told.append(
            f"d: difference to the baseline ({summary.baseline_label}, all else equal) with the same seeds{how}."
        )
    told += (
        [f"Bold: best of its column{' and group' if len(summary.groups) > 1 else ''}."] if summary.most_seeds else []
    )
    return " ".join([*told, *brackets(summary)])


def reading(summary: Summary) -> Iterator[str]:
    yield '<div id="reading" class="small">'
    yield from _significance(summary)
    yield "<ul>"
    meant: dict[str, list[str]] = {}
    for metric in summary.metrics:
        meant.setdefault(metric.meaning, []).append(metric.title)
    for meaning, titles in meant.items():
        if meaning:
            yield f"<li><b>{escape('; '.join(titles))}</b>: {escape(meaning)}.</li>"
    if any(metric.of_samples for metric in summary.metrics):
        yield ("<li><b>floor</b>: what real training images score against real held-out images; no sampler can be ")
        yield "expected to be better.</li>"
    if any(summary.cell(row, "val/bits_per_dim").floor is not None for row in summary.rows):
        yield "<li><b>floor</b> of bits/dim: the best possible network's, on the same images and noise.</li>"
    if any(_zeros(summary, metric) for metric in summary.metrics):
        yield "<li><b>eps = 0</b>: what that answer costs, measured on an epsilon network before its first step.</li>"
    yield "</ul>"
    yield from (f"<p>{escape(caution)}</p>" for caution in cautions(summary))
    yield "<p>Training losses are not in this table: each is in units of its own.</p></div>"


def _significance(summary: Summary) -> Iterator[str]:
    kept = [
        f"{row.label} in {metric.title} (p = {p:.2g})"
        for metric in summary.metrics
        for row in summary.rows
        if (p := summary.cell(row, metric).p_holm) is not None and p < 0.05
    ]
    tested = any(cell.p_holm is not None for cell in summary.cells.values())
    if tested:
        shown = "; ".join(kept[:24]) + (f"; and {len(kept) - 24} more" if len(kept) > 24 else "")
        yield (
            "<p>The intervals are for one comparison at a time. Corrected after Holm for all rows of a column, these "
        )
        yield f"differences stay below 5 %: {escape(shown) or 'none'}.</p>"


def _broken(title: str) -> str:
    """A heading on two lines."""
    return escape(title).replace(", ", ",<br>") if "," in title else escape(title).replace(" ", "<br>", 1)
