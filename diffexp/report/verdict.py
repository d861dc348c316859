"""The verdict, in words."""

from collections.abc import Sequence

from diffexp.report.format import counted, interval, listed, number, share
from diffexp.report.metrics import Metric
from diffexp.report.ranking import EQUAL, EQUAL_FOR_ONE_SEED, Ranking, comparable_parts, rankings
from diffexp.report.rows import RATE, Row, short
from diffexp.report.status import state_counts
from diffexp.report.summary import Summary

MOST_NAMES = 6


def question(summary: Summary) -> str:
    """The study's question, from what varies."""
    others = [
        "the learning rate" if key == RATE else short(key, summary.keys) for key in summary.keys if key != "target"
    ]
    do = "does" if len(others) == 1 else "do"
    if "target" in summary.keys:
        with_others = f", and what {do} {listed(others)} change" if others else ""
        return f"What should the network be asked to predict{with_others}?"
    if others:
        target = summary.common.get("target", "")
        return f"What {do} {listed(others)} change{f', for target {target}' if target else ''}?"
    return f"How well does one configuration ({summary.rows[0].label}) do?"


def progress(summary: Summary) -> str:
    """ "18 runs: 2 running, 1 diverged, 15 done"."""
    return f"{counted(len(summary.runs), 'run')}: {state_counts(summary.states)}"


def verdict(summary: Summary) -> list[str]:
    """The verdict in a few sentences."""
    summary = summary.best_rate or summary
    if summary.most_seeds == 0:
        return ["No run is done yet, so there is no verdict."]
    sentences = [f"{name[:1].upper()}{name[1:]}. {sentence}" if name else sentence
                 for name, part in comparable_parts(summary) for sentence in _sentences(part)]  # fmt: skip
    groups = [not_comparable(summary)] if len(summary.groups) > 1 else []
    if not sentences:
        where = "No group has two rows with finished runs" if groups else "Only one row has finished runs"
        return [*groups, f"{where}: there is nothing to compare it with yet."]
    rate = ["Each row is taken at its best learning rate."] if summary.chosen_by else []
    return [*groups, *rate, *sentences, _basis(summary)]


def not_comparable(summary: Summary) -> str:
    """Why there is more than one ranking."""
    names = listed(list(summary.groups), MOST_NAMES)
    return (
        "Prediction errors are compared only where the held-out images, noise and noise levels are the same, so there "
        f"is a ranking for each of {names}."
    )


def _basis(summary: Summary) -> str:
    if summary.most_seeds <= 1:
        return (
            "One seed gives no confidence interval: these are observations, and another seed may order close rows "
            f"differently; leads below {100 * EQUAL_FOR_ONE_SEED:g} % are called equal."
        )
    return (
        "The best row is named first. Clearly worse: the difference to it, paired by seed, excludes 0 at the 95 % "
        f"level after Holm's correction, and is {100 * EQUAL:g} % or more."
    )


def _sentences(summary: Summary) -> list[str]:
    """One sentence for the metrics that have the same leaders and the same relation between them."""
    alike: dict[tuple[str, frozenset[str], str, bool, int, bool], list[Ranking]] = {}
    for ranking in rankings(summary):
        leaders = frozenset(row.name for row in ranking.tied)
        kind = relation(ranking), bool(ranking.worse), ranking.seeds, ranking.metric.absolute
        alike.setdefault((ranking.best.name, leaders, *kind), []).append(ranking)
    return [_sentence(group) for group in alike.values()]


def _sentence(alike: Sequence[Ranking]) -> str:
    first = alike[0]
    everyone = not first.worse and len(first.leaders) > MOST_NAMES
    leads = f"{first.best.phrase} is best"
    if first.tied:
        leads = f"{'all rows' if everyone else named(first.leaders, first)} {relation(first)}"
    leads = f"{_titles([ranking.metric for ranking in alike])}: {leads}"
    gaps = [ranking.gap(row) for ranking in alike for row in ranking.worse]
    if not gaps:
        return f"{leads}."
    few = len(alike) == 1 and len(first.worse) <= 2
    others = named(first.worse, first) if few else "the others"
    are = "is" if few and len(first.worse) == 1 else "are"
    known = [gap for gap in gaps if gap is not None]
    by = (
        f" by {first.metric.amount(min(known))}{' or more' if len(known) > 1 else ''}"
        if len(known) == len(gaps)
        else ""
    )
    return f"{leads}; {others} {are} {'clearly ' if first.seeds > 1 else ''}worse{by}."


def relation(ranking: Ranking) -> str:
    """What holds between the best row and those tied with it."""
    if not ranking.tied:
        return ""
    gaps = [ranking.gap(row) for row in ranking.tied]
    widest = max((gap for gap in gaps if gap is not None), default=0.0)
    if None not in gaps and widest < EQUAL:
        return f"are equal within {ranking.metric.amount(EQUAL)}"
    if None not in gaps and ranking.seeds == 1:
        return f"are equal within {ranking.metric.amount(EQUAL_FOR_ONE_SEED)}"
    return "are not distinguishable"


def named(rows: Sequence[Row], ranking: Ranking) -> str:
    """Rows in a list; where all of a target's are in it, the target stands for them."""
    everyone = [ranking.best, *ranking.tied, *ranking.worse]
    names: list[str] = []
    for row in rows:
        alike = [other for other in everyone if other.target == row.target]
        whole = len(alike) > 1 and len({other.target for other in everyone}) > 1 and all(o in rows for o in alike)
        name = f"{'both' if len(alike) == 2 else f'all {len(alike)}'} {row.target} rows" if whole else row.phrase
        names += [] if name in names else [name]
    return listed(names, MOST_NAMES)


def distance(ranking: Ranking, row: Row) -> str:
    """ "+3.4 %" from the best; with several seeds the paired difference and its interval."""
    gap, difference = ranking.gap(row), ranking.differences[row.name]
    sign = "\N{MINUS SIGN}" if ranking.metric.higher_is_better else "+"
    parts: list[str] = []
    if gap is not None and ranking.metric.absolute:
        parts.append(f"+{number(gap)}")
    elif gap is not None:
        parts.append(f"{1 + gap:.3g} times" if gap >= 1 else share(gap) if gap < 1e-4 else f"{sign}{share(gap)}")
    if difference is None:
        parts.append("no seed in common")
    elif gap is None or difference.n > 1:
        parts.append(f"d {interval(difference)}")
    return "; ".join(parts)


def _titles(metrics: Sequence[Metric]) -> str:
    """ "Prediction error in eps and v units, bits/dim"."""
    titles: list[str] = []
    for kind, excess in (("Prediction error", False), ("Excess over the optimal prediction", True)):
        units = [metric.currency for metric in metrics if metric.currency and metric.excess == excess]
        titles += [f"{kind} in {listed(units)} units"] * bool(units)
    return ", ".join(titles + [metric.title for metric in metrics if not metric.currency])
