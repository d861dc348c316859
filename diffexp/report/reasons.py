"""Why the rows differ: label noise, where the weight lies, and at which noise levels the errors were made."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, cast

from diffexp.io.jsonio import finite
from diffexp.report.curves import Bands, by_band
from diffexp.report.format import log_snr_range, number, rounded_percent
from diffexp.report.rows import Row
from diffexp.report.summary import Summary
from diffexp.runs.metric_keys import CURRENCIES, NOISE_REGIONS
from diffexp.runs.study import Run

NOTABLE_NOISE = 0.01
"""Share of the zero-prediction baseline's loss that must be label noise to be mentioned."""
LOPSIDED = 2.0
"""How many times its share of the times a region's share of the weight must be to be mentioned."""
NOTABLE_EXCESS = 0.1
"""Relative difference of two prediction errors that is worth locating."""
MOST_OF_IT = 0.75
"""Part of a total that its bands must hold to be named."""

SAMPLES_AND_ERRORS = (
    "Good samples and a large eps-error need not contradict each other: a sampler is hardly sensitive to the "
    "prediction at high log-SNR, where x_t is almost the image and an error in eps is a small one in x0, the less so "
    "if predictions are clipped to the range of images."
)
_FACTOR = {
    "eps": "all noise levels count alike",
    "x0": "e^-lam multiplies the eps-error",
    "v": "1 + e^-lam multiplies the eps-error",
    "score": "1 / sigma^2 multiplies the eps-error",
}


def where_totals_lie(summary: Summary) -> list[str]:
    """For each unit of the prediction error, the noise levels that the baseline's total comes from."""
    found: list[str] = []
    for name, rows in summary.groups.items():
        row = next((row for row in rows if row.done and summary.baselines.get(row.name) is row), None)
        row = row or next((row for row in rows if row.done), None)
        if row is None:
            continue
        times = _times(row.done[0])
        prefix = f"{name}: " if name else ""
        found += [prefix + sentence for unit in CURRENCIES if (sentence := _origin(row, unit, times))]
    return found


def _origin(row: Row, unit: str, times: Bands) -> str:
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
    if run[-1] == bands[-1]:
        high = math.inf
    elif run[0] == bands[0]:
        low = -math.inf
    return (
        f"{unit}-error ({_FACTOR[unit]}): {rounded_percent(held)} of {row.phrase}'s total lies at "
        f"{log_snr_range(low, high)}, where {rounded_percent(timed)} of the times are."
    )


def reasons(summary: Summary) -> dict[str, list[str]]:
    """Sentences for each row's label; rows about which there is nothing to say are left out."""
    found: dict[str, list[str]] = {}
    for row in summary.rows:
        if not row.done:
            continue
        run, against = row.done[0], summary.baselines.get(row.name)
        sentences = [*_noise(run), *_weight(run)]
        if against is not None and against.done and against.name != row.name:
            sentences += [sentence for unit in ("eps", "x0") for sentence in _where(row, against, unit, _times(run))]
        if sentences:
            found[row.label] = sentences
    return found


def _noise(run: Run) -> list[str]:
    """What part of the loss is irreducible label noise."""
    noise, zero = run.number("label_noise"), run.number("zero_loss")
    if noise is None or not zero or noise / zero < NOTABLE_NOISE:
        return []
    share = 100 * noise / zero
    return [
        f"{share:.3g} % of the zero-prediction baseline's loss ({number(zero)}) is irreducible label noise: the "
        f"training loss cannot fall below {number(noise)}, and at most {100 - share:.2g} % of it measures learning."
    ]


def _weight(run: Run) -> list[str]:
    """The region of noise levels that gets far more weight than its share of the times."""
    bins = _weights(run)
    if not bins:
        return []
    for name, (low, high) in NOISE_REGIONS.items():
        there = [(share, weight) for at, weight, share in bins if low <= at < high]
        times, spent = sum(share for share, _ in there), sum(share * weight for share, weight in there)
        if times > 0 and spent > 0.5 and spent / times >= LOPSIDED:
            return [
                f"It puts {rounded_percent(spent)} of its weight on {name} noise ({log_snr_range(low, high)}), where "
                f"{rounded_percent(times)} of the times are."
            ]
    return []


def _where(row: Row, against: Row, unit: str, times: Bands) -> list[str]:
    """The bands of log-SNR in which most of the difference to the baseline arose."""
    ours, theirs = _bands(row, unit), _bands(against, unit)
    gaps = {band: times.get(band, 0.0) * (ours[band] - theirs[band]) for band in ours.keys() & theirs.keys()}
    total = sum(gaps.values())
    reference = sum(times.get(band, 0.0) * theirs[band] for band in gaps)
    if not gaps or reference <= 0 or abs(total) / reference < NOTABLE_EXCESS:
        return []
    sign = 1 if total > 0 else -1
    worst = sorted(gaps, key=lambda band: -sign * gaps[band])
    chosen: list[tuple[float, float]] = []
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
        f"Its {unit}-error is {than} than that of {against.label}, and {rounded_percent(min(share, 1))} of the "
        f"difference arises at log-SNR {low:g} to {high:g}."
    ]


def _bands(row: Row, unit: str) -> Bands:
    """Means over the row's finished runs."""
    tables = [by_band(run.final, f"val/belief_{unit}") for run in row.done]
    bands = dict.fromkeys(band for table in tables for band in table)
    return {band: fmean(table[band] for table in tables if band in table) for band in bands}


def _times(run: Run) -> Bands:
    """Share of the times in each band of width 2."""
    shares: Bands = {}
    for at, _, share in _weights(run):
        low = 2.0 * (at // 2)
        shares[low, low + 2.0] = shares.get((low, low + 2.0), 0.0) + share
    return shares


def _weights(run: Run) -> list[tuple[float, float, float]]:
    """(log-SNR, weight, share of the times) per bin, as recorded; empty if it was not."""
    recorded = run.record.get("effective_weight")
    if not isinstance(recorded, Mapping):
        return []
    columns = [cast(Mapping[str, Any], recorded).get(key) for key in ("log_snr", "weight", "times")]
    if not all(isinstance(column, list) for column in columns):
        return []
    rows = [[finite(value) for value in row] for row in zip(*cast(list[list[Any]], columns), strict=False)]
    return [(at, weight, share) for at, weight, share in rows
            if at is not None and weight is not None and share is not None]  # fmt: skip
