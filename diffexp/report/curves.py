"""What the report needs of a run's metrics.jsonl, taken in one pass so that the rest can be forgotten."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffexp.report.metrics import ERRORS
from diffexp.runs.metric_keys import split_band
from diffexp.runs.study import Run

#: A training curve is drawn as the means of this many stretches: enough to see, few enough to send.
STRETCHES = 80

Curve = tuple[list[float], list[float]]
"""Images seen, and a value at each."""

Bands = dict[tuple[float, float], float]
"""Values by (low, high) in log-SNR."""


@dataclass(frozen=True)
class Curves:
    """One run's curves over images seen.

    Attributes:
        errors: By name in `ERRORS`, the total prediction error, where it was measured.
        loss: The training loss in the run's own units, thinned.
        newest: The newest value of each metric, whatever became of the run.
    """

    errors: Mapping[str, Curve]
    loss: Curve
    newest: Mapping[str, float]

    @property
    def zero_loss(self) -> float | None:
        """The loss of the zero-prediction baseline in the run's own units."""
        return self.newest.get("val/zero_loss")

    @property
    def fall(self) -> float | None:
        """Relative fall of the eps-error over the last tenth of training; None if unknown.

        Along the curve of ln(error) over images seen, straight between validations.
        """
        images, errors = self.errors["eps"]
        if len(images) < 2 or min(errors) <= 0:
            return None
        at = 0.9 * images[-1]
        for (start, before), (stop, after) in itertools.pairwise(zip(images, errors, strict=True)):
            if start <= at < stop:
                part = (at - start) / (stop - start)
                return 1 - errors[-1] / math.exp((1 - part) * math.log(before) + part * math.log(after))
        return None

    @property
    def untrained(self) -> dict[str, float]:
        """By metric, the prediction errors measured before the first step, where they were."""
        return {ERRORS[name]: errors[0] for name, (images, errors) in self.errors.items() if images and images[0] == 0}


@dataclass(frozen=True)
class CurveReader:
    """The curves of a study's runs; each metrics.jsonl is opened once, when its run is first used."""

    _read: dict[Path, Curves] = field(default_factory=dict[Path, Curves])

    def __getitem__(self, run: Run) -> Curves:
        if run.path not in self._read:
            self._read[run.path] = read_curves(run)
        return self._read[run.path]


def read_curves(run: Run) -> Curves:
    """Read one run; empty curves where nothing was written yet."""
    errors: dict[str, Curve] = {name: ([], []) for name in ERRORS}
    newest: dict[str, float] = {}
    steps: list[tuple[float, float]] = []
    for line in run.metrics():
        seen = line["images_seen"]
        assert seen is not None, "Run.metrics orders by it"
        if (loss := line.get("train/loss")) is not None:
            steps.append((seen, loss))
        for name, (images, values) in errors.items():
            if (error := line.get(ERRORS[name])) is not None:
                images.append(seen)
                values.append(error)
        newest |= {key: value for key, value in line.items() if value is not None}
    return Curves(errors, _thin(steps), newest | run.final)


def by_band(values: Mapping[str, float], name: str) -> Bands:
    """The entries of `name` by band of log-SNR, in increasing order."""
    start = f"{name}/lam_"
    found = {band: value for key, value in values.items()
             if key.startswith(start) and (band := split_band(key)[1])}  # fmt: skip
    return dict(sorted(found.items()))


def _thin(steps: Sequence[tuple[float, float]]) -> Curve:
    """Means over at most `STRETCHES` stretches, each at the end of its stretch."""
    count = max(1, -(-len(steps) // STRETCHES))
    stretches = [steps[start : start + count] for start in range(0, len(steps), count)]
    return [part[-1][0] for part in stretches], [sum(loss for _, loss in part) / len(part) for part in stretches]
