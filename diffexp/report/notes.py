"""Why the rows differ: label noise, where the weight lies, and at which noise levels the errors were made."""

import re
from collections.abc import Mapping
from statistics import fmean
from typing import Any, cast

from diffexp.report.metrics import CURRENCIES
from diffexp.report.rows import Row
from diffexp.report.summary import Summary
from diffexp.runs.study import Run

NOTABLE_NOISE = 0.01
"""Share of the zero answer's loss that must be label noise to be mentioned."""
LOPSIDED = 2.0
"""How many times its share of the times a region's share of the weight must be to be mentioned."""
NOTABLE_EXCESS = 0.1
"""Relative difference of two belief errors that is worth locating."""
REGIONS = (
    ("low noise (log-SNR above 4)", 4.0, float("inf")),
    ("middling noise (log-SNR from -4 to 4)", -4.0, 4.0),
    ("high noise (log-SNR below -4)", float("-inf"), -4.0),
)


SAMPLES_AND_BELIEFS = (
    "Good samples and a large eps-error need not contradict each other: a sampler hardly feels what the network "
    "believes at high log-SNR, where x_t is almost the image and an error in eps is a small one in x0, the more so if "
    "its beliefs are clipped to the range of images."
)
_FACTOR = {
    "eps": "all noise levels count alike",
    "x0": "e^-lam multiplies the eps-error",
    "v": "1 + e^-lam multiplies the eps-error",
    "score": "1 / sigma^2 multiplies the eps-error",
}
MOST_OF_IT = 0.75
"""Part of a total that its bands must hold to be named."""


def where_totals_lie(summary: Summary) -> list[str]:
    """For each unit of the belief error, the noise levels that the baseline's total comes from."""
    found: list[str] = []
    for name, rows in summary.groups.items():
        row = next((row for row in rows if row.done and summary.baselines.get(row.name) is row), None)
        row = row or next((row for row in rows if row.done), None)
        if row is None:
            continue
        times = _times(row.done[0])
        prefix = f"{name}: " if name else ""
        found += [prefix + told for unit in CURRENCIES if (told := _origin(row, unit, times))]
    return found


def _origin(row: Row, unit: str, times: Mapping[tuple[int, int], float]) -> str:
    """The fewest neighbouring bands that hold most of the total."""
    parts = {band: times[band] * error for band, error in sorted(_bands(row, unit).items()) if band in times}
    total = sum(parts.values())
    if total <= 0 or len(parts) < 3:
        return ""
    bands = list(parts)
    runs = [bands[i:j] for i in range(len(bands)) for j in range(i + 1, len(bands) + 1)]
    enough = [run for run in runs if sum(parts[band] for band in run) >= MOST_OF_IT * total]
    run = min(enough, key=lambda run: (len(run), -sum(parts[band] for band in run)))
    held, timed = sum(parts[band] for band in run) / total, sum(times[band] for band in run) / sum(times.values())
    low, high = run[0][0], run[-1][1]
    where = f"from {low} to {high}"
    if run[-1] == bands[-1]:
        where = f"above {low}"
    elif run[0] == bands[0]:
        where = f"below {high}"
    return (
        f"{unit}-error ({_FACTOR[unit]}): {100 * held:.0f} % of {row.phrase}'s total lies at log-SNR {where}, where "
        f"{100 * timed:.0f} % of the times are."
    )


def reasons(summary: Summary) -> dict[str, list[str]]:
    """Sentences for each row's label; rows about which there is nothing to say are left out."""
    found: dict[str, list[str]] = {}
    for row in summary.rows:
        if not row.done:
            continue
        run, against = row.done[0], summary.baselines.get(row.name)
        told = [*_noise(run), *_weight(run)]
        if against is not None and against.done and against.name != row.name:
            told += [sentence for unit in ("eps", "x0") for sentence in _where(row, against, unit, _times(run))]
        if told:
            found[row.label] = told
    return found


def _noise(run: Run) -> list[str]:
    """What part of the loss is news that no network can predict."""
    noise, zero = run.number("label_noise"), run.number("zero_loss")
    if noise is None or not zero or noise / zero < NOTABLE_NOISE:
        return []
    share = 100 * noise / zero
    return [
        f"{share:.3g} % of the loss of answering zero ({zero:.4g}) is label noise that no network can predict: "
        f"the training loss cannot fall below {noise:.4g}, and at most {100 - share:.2g} % of it measures learning."
    ]


def _weight(run: Run) -> list[str]:
    """The region of noise levels that gets far more weight than its share of the times."""
    bins = _weights(run)
    if not bins:
        return []
    for name, low, high in REGIONS:
        there = [(share, weight) for at, weight, share in bins if low <= at < high]
        times, spent = sum(share for share, _ in there), sum(share * weight for share, weight in there)
        if times > 0 and spent > 0.5 and spent / times >= LOPSIDED:
            return [f"It puts {100 * spent:.0f} % of its weight on {name}, where {100 * times:.0f} % of the times are."]
    return []


def _where(row: Row, against: Row, unit: str, times: Mapping[tuple[int, int], float]) -> list[str]:
    """The bands of log-SNR in which most of the difference to the baseline arose."""
    ours, theirs = _bands(row, unit), _bands(against, unit)
    gaps = {band: times.get(band, 0.0) * (ours[band] - theirs[band]) for band in ours.keys() & theirs.keys()}
    total = sum(gaps.values())
    reference = sum(times.get(band, 0.0) * theirs[band] for band in gaps)
    if not gaps or reference <= 0 or abs(total) / reference < NOTABLE_EXCESS:
        return []
    sign = 1 if total > 0 else -1
    worst = sorted(gaps, key=lambda band: -sign * gaps[band])
    chosen: list[tuple[int, int]] = []
    for band in worst:
        chosen.append(band)
        if sum(gaps[b] for b in chosen) / total > 0.75 or len(chosen) == 3:
            break
    low, high = min(band[0] for band in chosen), max(band[1] for band in chosen)
    share = sum(gap for band, gap in gaps.items() if low <= band[0] and band[1] <= high) / total
    if share < 0.5:
        return []
    than = "larger" if sign > 0 else "smaller"
    return [
        f"Its {unit}-error is {than} than that of {against.label}, and {min(100 * share, 100):.0f} % of the difference "
        f"arises at log-SNR {low} to {high}."
    ]


def _bands(row: Row, unit: str) -> dict[tuple[int, int], float]:
    pattern = re.compile(rf"val/belief_{unit}/lam_(-?\d+)_(-?\d+)")
    seen: dict[tuple[int, int], list[float]] = {}
    for run in row.done:
        for key, value in run.final.items():
            if match := pattern.fullmatch(key):
                seen.setdefault((int(match[1]), int(match[2])), []).append(value)
    return {band: fmean(values) for band, values in seen.items()}


def _times(run: Run) -> dict[tuple[int, int], float]:
    """Share of the times in each band of width 2."""
    shares: dict[tuple[int, int], float] = {}
    for at, _, share in _weights(run):
        low = 2 * int(at // 2)
        shares[low, low + 2] = shares.get((low, low + 2), 0.0) + share
    return shares


def _weights(run: Run) -> list[tuple[float, float, float]]:
    """(log-SNR, weight, share of the times) per bin, as recorded; empty if it was not."""
    recorded = run.record.get("effective_weight")
    if not isinstance(recorded, Mapping):
        return []
    columns = [cast(Mapping[str, Any], recorded).get(key) for key in ("log_snr", "weight", "times")]
    if not all(isinstance(column, list) for column in columns):
        return []
    rows = zip(*cast(list[list[Any]], columns), strict=False)
    return [row for row in rows if all(isinstance(value, int | float) for value in row)]
