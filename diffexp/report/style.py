"""How rows look: a target has one colour and marker in every figure, the dash shows what else varies.

The colours follow Okabe and Ito, and Tol: they stay distinct for colour-blind readers, on white and near-black. Beyond
the twelfth target they come again, each time with other markers.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.report.rows import TARGETS, Row
from diffexp.runs.study import Run

#: At most so many runs are drawn as lines of their own; beyond that, fewer seeds of each row.
MOST_LINES = 120

_COLOURS = ("#2b83c6", "#56b4e9", "#e69f00", "#999933", "#bb7a2a", "#d55e00", "#aa4499", "#cc6677", "#009e73",
            "#b565a7", "#44aa99", "#888888")  # fmt: skip
_MARKERS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon", "star", "diamond-tall",
            "triangle-down", "bowtie", "hourglass")  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Style:
    """How each row is drawn, by its name."""

    colours: Mapping[str, str]
    markers: Mapping[str, str]
    dashes: Mapping[str, str]

    def line(self, row: Row, width: float = 1.8) -> dict[str, Any]:
        return {"color": self.colours[row.name], "dash": self.dashes[row.name], "width": width}

    def marker(self, row: Row, size: int = 7) -> dict[str, Any]:
        return {"color": self.colours[row.name], "symbol": self.markers[row.name], "size": size}


def style_of(rows: Sequence[Row]) -> Style:
    """Colour and marker by target, the same in every study for the targets in `TARGETS`; dash by all else."""
    place = _places([row.target for row in rows])
    rest = {row.name: tuple(row.choices.get(key) for key in row.keys if key != "target") for row in rows}
    kinds = list(dict.fromkeys(rest.values()))
    return Style(
        {row.name: _colour(place[row.target]) for row in rows},
        {row.name: _marker(place[row.target]) for row in rows},
        {name: DASHES[kinds.index(kind) % len(DASHES)] for name, kind in rest.items()},
    )


def target_colours(targets: Sequence[str]) -> dict[str, str]:
    """The colour that each of these targets has in every figure."""
    place = _places(targets)
    return {target: _colour(place[target]) for target in targets}


def drawn(rows: Sequence[Row]) -> list[tuple[Row, Run]]:
    """The runs that get lines of their own: all of them, or the first seeds of each row."""
    with_records = [[(row, run) for run in row.runs if run.record] for row in rows]
    total = sum(len(runs) for runs in with_records)
    seeds = max((len(runs) for runs in with_records), default=0)
    while seeds > 1 and total > MOST_LINES:
        seeds -= 1
        total = sum(len(runs[:seeds]) for runs in with_records)
    return [pair for runs in with_records for pair in runs[:seeds]][:MOST_LINES]


def _places(targets: Sequence[str]) -> dict[str, int]:
    """The targets in `TARGETS` each at its own place, others at unused ones and then after all."""
    others = [target for target in dict.fromkeys(targets) if target not in TARGETS]
    unused = [TARGETS.index(target) for target in reversed(TARGETS) if target not in targets]
    place = {target: index for index, target in enumerate(TARGETS)}
    return place | dict(zip(others, itertools.chain(unused, itertools.count(len(TARGETS))), strict=False))


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _marker(place: int) -> str:
    """Shifted by one after each round of the colours, so that no pair of colour and marker comes twice soon."""
    return _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]
