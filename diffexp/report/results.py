"""The page's table of results, each number linked to its runs, and how to read it."""

from collections.abc import Iterator
from html import escape

from diffexp.report.links import row_anchor
from diffexp.report.look import Look
from diffexp.report.statistics import Mean
from diffexp.report.summary import Cell, Summary
from diffexp.report.terminal import status
from diffexp.report.verdict import bounds, cautions, number, ranked


def results_table(summary: Summary, style: Look) -> Iterator[str]:
    yield '<div class="wide summary" tabindex="0"><table><thead><tr>'
    keys = summary.columns or ("target",)
    yield "".join(f'<th class="name" scope="col">{escape(key)}</th>' for key in keys)
    yield '<th scope="col">seeds done</th>'
    for metric in summary.metrics:
        up = ", higher is better" if metric.higher_is_better else ""
        yield f'<th scope="col"><a href="#reading">{_broken(metric.title + up)}</a></th>'
    yield "</tr></thead><tbody>"
    leaders = {metric.key: [row.name for row in ranked(summary, metric)][:1] for metric in summary.metrics}
    for row in summary.rows:
        swatch = f'<span class="mark" style="background:{style.colours[row.name]}"></span>'
        names = [row.choices.get(key, "-") for key in keys] if row.choices else [row.label, *[""] * (len(keys) - 1)]
        anchor = row_anchor(row)
        link = f'<a href="#{anchor}">{escape(names[0])}</a>'
        yield f'<tr><th class="name" scope="row">{swatch}{link}</th>'
        yield "".join(f'<td class="name">{escape(name)}</td>' for name in names[1:])
        yield f'<td><a href="#{anchor}">{escape(status(row)).replace(", ", ",<br>")}</a></td>'
        for metric in summary.metrics:
            kind = ' class="best"' if row.name in leaders[metric.key] else ""
            yield f"<td{kind}>{_cell(summary.cell(row, metric), anchor)}</td>"
        yield "</tr>"
    yield "</tbody>"
    yield from _floors(summary, len(keys))
    yield "</table></div>"


def _cell(cell: Cell, anchor: str) -> str:
    if cell.value is None:
        if cell.so_far is None:
            return "-"
        return f'<a href="#{anchor}">({number(cell.so_far)})</a><span class="sub">so far</span>'
    parts = [f'<a href="#{anchor}">{number(cell.value.mean)}</a>']
    parts.append(f'<span class="sub">{_scatter(cell.value, anchor)}</span>')
    if cell.difference:
        mark = " *" if cell.difference.excludes_zero else ""
        parts.append(f'<span class="sub d">d <a href="#{anchor}">{number(cell.difference.mean)}</a>{mark}</span>')
        if cell.difference.n > 1 or cell.value.n > 1:
            parts.append(f'<span class="sub">{_scatter(cell.difference, anchor)}</span>')
    return "".join(parts)


def _scatter(mean: Mean, anchor: str) -> str:
    if mean.low is None or mean.high is None:
        return "n = 1"
    return f'<a href="#{anchor}">{bounds(mean)}</a>'


def _floors(summary: Summary, keys: int) -> Iterator[str]:
    floors = [
        [(floor, row) for row in summary.rows if (floor := summary.cell(row, metric).floor) is not None]
        for metric in summary.metrics
    ]
    if not any(floors):
        return
    yield f'<tfoot><tr><th class="name" scope="row">floor</th><td colspan="{keys}"></td>'
    for found in floors:
        if found:
            (low, row), (high, _) = min(found, key=lambda f: f[0]), max(found, key=lambda f: f[0])
            shown = number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"
            yield f'<td><a href="#{row_anchor(row)}">{shown}</a></td>'
        else:
            yield "<td></td>"
    yield "</tr></tfoot>"


def reading(summary: Summary) -> Iterator[str]:
    yield '<div id="reading" class="small">'
    if summary.most_seeds > 1:
        yield "<p>Means over the seeds that are done, with the 95 % Student-t interval over seeds below. "
    else:
        yield "<p>One seed (n = 1): no confidence interval can be given. "
    if summary.compares:
        baseline = escape(summary.baseline_label)
        yield f"d: difference to the baseline ({baseline}, all else equal) with the same seeds, paired seed by seed, "
        yield "with its own interval; * marks an interval that leaves out 0. "
    yield "Bold: best of its column. Runs that are not done do not enter a mean; numbers in brackets are where such "
    yield "a run stood.</p>"
    yield from _significance(summary)
    yield "<ul>"
    for metric in summary.metrics:
        if metric.meaning:
            yield f"<li><b>{escape(metric.title)}</b>: {escape(metric.meaning)}.</li>"
    if any(metric.of_samples for metric in summary.metrics):
        yield ("<li><b>floor</b>: what real training images score against real held-out images; no sampler can be ")
        yield "expected to be better.</li>"
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
