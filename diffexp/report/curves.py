"""What the figures need of a run's metrics.jsonl, taken in one pass so that the rest can be forgotten."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffexp.report.metrics import ERRORS
from diffexp.runs.study import Run

#: A training curve is drawn as the means of this many stretches: enough to see, few enough to send.
STRETCHES = 80

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Curves:
    """One run's curves over images seen.

    Attributes:
        belief: By name in `ERRORS`, the total error of the belief, where it was measured.
        bands: By name in `ERRORS`, the newest error by band of log-SNR, (low, high) -> value.
        loss: The training loss in the run's own units, thinned.
        zero_loss: What predicting zero costs in those units, if it is known.
    """

    belief: dict[str, Curve]
    bands: dict[str, dict[tuple[float, float], float]]
    loss: Curve
    zero_loss: float | None


def read_curves(run: Run) -> Curves:
    """Read one run; empty curves where nothing was written yet."""
    belief: dict[str, Curve] = {name: ([], []) for name in ERRORS}
    newest: dict[str, float] = {}
    steps: list[tuple[float, float]] = []
    for line in run.metrics():
        seen = line["images_seen"]
        assert seen is not None, "Run.metrics orders by it"
        loss = line.get("train/loss")
        if loss is not None:
            steps.append((seen, loss))
        for name, (images, errors) in belief.items():
            error = line.get(ERRORS[name])
            if error is not None:
                images.append(seen)
                errors.append(error)
        if line.get("val/belief_eps") is not None:
            newest = {key: value for key, value in line.items() if value is not None}
    newest |= run.final
    bands = {name: by_band(newest, key) for name, key in ERRORS.items()}
    return Curves(belief, bands, _thin(steps), newest.get("val/zero_loss"))


def by_band(values: Mapping[str, float], key: str) -> dict[tuple[float, float], float]:
    """The entries `<key>/lam_<low>_<high>` as (low, high) -> value, in increasing log-SNR."""
    name = re.compile(rf"{key}/lam_(-?[\d.]+)_(-?[\d.]+)")
    found = {(float(match[1]), float(match[2])): value
             for key, value in values.items() if (match := name.fullmatch(key))}  # fmt: skip
    return dict(sorted(found.items()))


def _thin(steps: Sequence[tuple[float, float]]) -> Curve:
    """Means over at most `STRETCHES` stretches, each at the end of its stretch."""
    count = max(1, -(-len(steps) // STRETCHES))
    stretches = [steps[start : start + count] for start in range(0, len(steps), count)]
    return [part[-1][0] for part in stretches], [sum(loss for _, loss in part) / len(part) for part in stretches]
