"""The states of a study's runs, in a terminal, in a line and as JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from diffexp.io.progress import clock
from diffexp.io.redact import on_one_line
from diffexp.report.format import age, counted, number, percent
from diffexp.runs.run_state import RunState
from diffexp.runs.state_names import STATES, trouble

_STYLES = {"failed": "bold red", "unreadable": "bold red", "stopped": "yellow", "interrupted": "yellow",
           "running": "green", "starting": "green", "not started": "dim",
           "diverged": "magenta", "done": "dim"}  # fmt: skip
_HEADINGS = ("state", "part", "loss", "eps_error", "images/s", "ETA", "silent", "device", "run")
_NUMBERS = {"part", "loss", "eps_error", "images/s", "ETA", "silent"}


def status_lines(study: str, runs: Sequence[RunState], most: int | None) -> Iterator[Text]:
    """The study in a line, its runs a line each, and below each failed one why and what repeats it.

    Args:
        study: Its name.
        runs: Those that need attention first.
        most: How many runs to list at most; None: all. Where there are more, the done ones are counted, not listed,
            and then the last of the others.
    """
    yield Text(on_one_line(f"{study}: {overview(runs)}"), style="bold")
    listed = list(runs)
    if most is not None and len(runs) > most:
        listed = [run for run in runs if run.state != "done"][:most]
    if listed:
        yield Text()
        yield from _table(listed)
    if left := Counter(run.state for run in runs) - Counter(run.state for run in listed):
        yield Text(f"and {state_counts(left.elements())} (--all lists them)", style="dim")


def overview(runs: Sequence[RunState]) -> str:
    """ "24 runs: 1 failed, 2 running, 21 done; 95 % of the images; 1:02 left for the running ones"."""
    line = f"{counted(len(runs), 'run')}: {state_counts(run.state for run in runs)}"
    totals = study_totals(runs)
    if totals["progress"] is not None:
        line += f"; {percent(totals['progress'])} of their images"
    if totals["eta"] is not None:
        line += f"; {clock(totals['eta'])} left for the running ones"
    return line


def study_totals(runs: Sequence[RunState]) -> dict[str, Any]:
    """`states`, how many runs are in each; `progress`, the share of all images seen; `eta`, until the last running
    one has trained, None unless it is known of all."""
    parts = [(run.progress, run.max_images) for run in runs]
    known = [(part, goal) for part, goal in parts if part is not None and goal is not None]
    goals = sum(goal for _, goal in known)
    etas = [run.eta for run in runs if run.state == "running"]
    whole = [eta for eta in etas if eta is not None]
    return {
        "states": dict(Counter(run.state for run in runs)),
        "progress": sum(part * goal for part, goal in known) / goals if goals else None,
        "eta": max(whole) if whole and len(whole) == len(etas) else None,
    }


def status_json(study: str, runs: Sequence[RunState]) -> dict[str, Any]:
    """All that is known, for `strict_json`; seconds, shares in [0, 1]."""
    return {
        "study": study,
        **study_totals(runs),
        "runs": [{**asdict(run), "progress": run.progress, "metrics": dict(run.metrics)} for run in runs],
    }


def state_counts(states: Iterable[str]) -> str:
    """ "1 failed, 2 running, 21 done": how many there are of each, those that need attention first."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "none"


def _table(runs: Sequence[RunState]) -> Iterator[Text]:
    rows = [_cells(run) for run in runs]
    widths = [max(map(cell_len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    yield Text(_padded(_HEADINGS, widths), style="dim")
    for run, cells in zip(runs, rows, strict=True):
        yield Text(_padded(cells, widths), style=_STYLES[run.state])
        if reason := trouble(run.state, run.error):
            yield Text(f"    {on_one_line(reason)}", style="red")
            if run.command:
                yield Text(f"    again: {on_one_line(run.command)}")


def _cells(run: RunState) -> list[str]:
    alive = run.state in ("running", "starting")
    loss, error = (run.metrics.get(key) for key in ("train/loss", "val/belief_eps"))
    return [
        run.state,
        "" if run.progress is None else percent(run.progress),
        "" if loss is None else number(loss),
        "" if error is None else number(error),
        f"{run.images_per_second:,.0f}" if alive and run.images_per_second is not None else "",
        "" if run.eta is None else clock(run.eta),
        "" if run.silent is None else age(run.silent),
        on_one_line(run.device or "")[:24],
        on_one_line(run.run),
    ]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if heading in _NUMBERS else cell + " " * (width - cell_len(cell))
        for heading, cell, width in zip(_HEADINGS, cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()
