"""What the course of training says about its end: whether errors were still falling, and what zero cost."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from diffexp.report.metrics import CURRENCIES
from diffexp.report.rows import Row
from diffexp.runs.study import Run

FALLING = 0.03
"""A fall of the eps-error over the last tenth of training that is worth a warning.

An error that goes as a power of the images seen and falls so would be a fifth lower after twice the training.
"""


@dataclass(frozen=True)
class Training:
    """The validations of one row's finished runs.

    Attributes:
        fall: Relative fall of the eps-error over the last tenth of training, mean over seeds; None if unknown.
        zero: What answering eps = 0 costs, by metric: the first validation of an untrained network that answers so.
    """

    fall: float | None
    zero: Mapping[str, float]

    @property
    def still_falling(self) -> bool:
        return self.fall is not None and self.fall > FALLING


def trained(row: Row) -> Training:
    """Read the row's metrics once."""
    falls: list[float] = []
    zero: Mapping[str, float] = {}
    for run in row.done:
        lines = _validations(run)
        fall = _fall([(line["images_seen"], line["val/belief_eps"]) for line in lines])
        falls += [] if fall is None else [fall]
        zero = zero or (_zero(row, lines[0]) if lines else {})
    return Training(fmean(falls) if falls else None, zero)


def _validations(run: Run) -> list[dict[str, float]]:
    known = [{key: value for key, value in line.items() if value is not None} for line in run.metrics("val/belief_eps")]
    return [line for line in known if "val/belief_eps" in line]


def _fall(points: Sequence[tuple[float, float]]) -> float | None:
    """Along the curve of ln(error) over images seen, straight between validations."""
    if len(points) < 2 or min(error for _, error in points) <= 0:
        return None
    end, last = points[-1]
    at = 0.9 * end
    for (start, before), (stop, after) in itertools.pairwise(points):
        if start <= at < stop:
            part = (at - start) / (stop - start)
            return 1 - last / math.exp((1 - part) * math.log(before) + part * math.log(after))
    return None


def _zero(row: Row, first: Mapping[str, float]) -> dict[str, float]:
    """An untrained network answers zero; for target epsilon, and for no other for certain, that is eps = 0."""
    errors = {key: first[key] for currency in CURRENCIES if (key := f"val/belief_{currency}") in first}
    untrained = first["images_seen"] == 0 and row.target == "epsilon" and abs(first["val/belief_eps"] - 1) < 0.05
    return errors if untrained else {}
