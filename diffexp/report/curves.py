"""What the figures need of a run's metrics.jsonl, taken in one pass so that the rest can be forgotten."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffexp.report.metrics import CURRENCIES
from diffexp.studies import Run

#: A training curve is drawn as the means of this many stretches: enough to see, few enough to send.
STRETCHES = 80

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Curves:
    """One run's curves over images seen.

    Attributes:
        belief: By currency, the total belief error.
        bands: By currency, the newest belief error by band of log-SNR, (low, high) -> value.
        loss: The training loss in the run's own units, thinned.
        zero_loss: What predicting zero costs in those units, if it is known.
    """

    belief: dict[str, Curve]
    bands: dict[str, dict[tuple[float, float], float]]
    loss: Curve
    zero_loss: float | None


def read_curves(run: Run) -> Curves:
    """Read one run; empty curves where nothing was written yet."""
    belief: dict[str, Curve] = {currency: ([], []) for currency in CURRENCIES}
    newest: dict[str, float] = {}
    steps: list[tuple[float, float]] = []
    for line in run.metrics():
        seen = line["images_seen"]
        assert seen is not None, "Run.metrics orders by it"
        loss = line.get("train/loss")
        if loss is not None:
            steps.append((seen, loss))
        for currency, (images, errors) in belief.items():
            error = line.get(f"val/belief_{currency}")
            if error is not None:
                images.append(seen)
                errors.append(error)
        if line.get("val/belief_eps") is not None:
            newest = {key: value for key, value in line.items() if value is not None}
    newest |= run.final
    bands = {currency: _bands(newest, currency) for currency in CURRENCIES}
    return Curves(belief, bands, _thin(steps), newest.get("val/zero_loss"))


def _bands(values: dict[str, float], currency: str) -> dict[tuple[float, float], float]:
    name = re.compile(rf"val/belief_{currency}/lam_(-?[\d.]+)_(-?[\d.]+)")
    found = {(float(match[1]), float(match[2])): value
             for key, value in values.items() if (match := name.fullmatch(key))}  # fmt: skip
    return dict(sorted(found.items()))


def _thin(steps: Sequence[tuple[float, float]]) -> Curve:
    """Means over at most `STRETCHES` stretches, each at the end of its stretch."""
    count = max(1, -(-len(steps) // STRETCHES))
    stretches = [steps[start : start + count] for start in range(0, len(steps), count)]
    return [part[-1][0] for part in stretches], [sum(loss for _, loss in part) / len(part) for part in stretches]
