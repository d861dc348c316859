"""A target on a schedule: whether it is right, and where it tells nothing.

Everything is tried on the times that training and sampling would use.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffexp.check.checks import (
    ALGEBRA,
    Case,
    Proof,
    coefficients_are_numbers,
    one_dimensional_times_are_refused,
    proved,
    told,
)
from diffexp.invertibility import BAD, Span, Worst, increasing, rounding, singular, spans, trained_times
from diffexp.schedule import Schedule
from diffexp.shapes import PerImage
from diffexp.targets import Target
from diffexp.times import Times


@dataclass(frozen=True)
class Examination:
    """One target on one schedule.

    Attributes:
        absent: Why the target means nothing on this schedule; then there are no proofs.
        proofs: In the order tried; where the coefficients are no numbers nothing else can be tried.
    """

    absent: str | None = None
    proofs: tuple[Proof, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no proof failed."""
        return all(proof.verdict != "FAILED" for proof in self.proofs)


def examine(target: Target, schedule: Schedule, times: Times, t_start: float = 1.0) -> Examination:
    """Try everything that must hold of the target on this schedule.

    Args:
        target: Any; what it raises is part of the result.
        schedule: Makes x_t.
        times: How training times are drawn.
        t_start: Where samplers start.
    """
    t = trained_times(times, schedule)
    try:
        target.coefficients(schedule, t)
    except ValueError as error:
        return Examination(absent=told(error))
    except Exception as error:
        return Examination(proofs=(Proof("coefficients", "FAILED", None, told(error)),))
    first = proved("coefficients", coefficients_are_numbers, Case(target, schedule, t))
    proofs = [first, proved("time shape", one_dimensional_times_are_refused, Case(target, schedule, t))]
    if first.verdict != "FAILED":
        span = _look(target, schedule, times, t_start)
        case = Case(target, schedule, _thinned(span.t[span.used & ~span.bad]))
        proofs += [proved(name, proof, case) for name, proof in ALGEBRA.items()] if len(case.t) else []
        proofs.append(_invertible(schedule, times, t_start, span))
        if all(proof.verdict != "FAILED" for proof in proofs):
            proofs += [_rounded(case, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return Examination(proofs=tuple(proofs))


def _thinned(t: Tensor, most: int = 1000) -> PerImage:
    """At most so many of the times, the first and the last among them."""
    return t[torch.linspace(0, len(t) - 1, min(len(t), most)).long()].reshape(-1, 1, 1, 1)


class _Looked(NamedTuple):
    """All times of a schedule, increasing; which are trained on or sampled at; where the target is singular."""

    t: Tensor
    used: Tensor
    bad: Tensor


def _look(target: Target, schedule: Schedule, times: Times, t_start: float) -> _Looked:
    first, last = times.range(schedule)
    every = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
    t = increasing(every) if schedule.is_chain else increasing(every, trained_times(times, schedule))
    used = (t >= first - 1e-12) & (t <= max(last, t_start) + 1e-12)
    return _Looked(t.flatten(), used.flatten(), singular(target, schedule, t).flatten())


def _invertible(schedule: Schedule, times: Times, t_start: float, looked: _Looked) -> Proof:
    """Where the answer says nothing about x0 and eps, and what follows."""
    t, used, bad = looked
    name = "invertible"
    if bad[used].all():
        said = (
            "the answer says nothing about x0 or eps at any time: gain = alpha b - sigma a is 0, so y only repeats x_t."
        )
        return Proof(name, "FAILED", 1.0, said)
    value = bad[used].double().mean().item()
    found = spans(bad, schedule, t.reshape(-1, 1, 1, 1))
    if not found:
        return Proof(name, "ok", value, "the answer tells x0 from eps at every time")
    low, high = t[used][0].item(), t[used][-1].item()
    inside = [span for span in found if span.first > low and span.last < high]
    if inside:
        return Proof(name, "FAILED", value, f"{_nothing(inside[0])}, between times that are used: its gain alpha b - "
                     "sigma a changes sign there, or is 0. Keep to one side of it, with times.t_max= and "
                     f"sampling.t_start= below it or times.t_min= above it.")  # fmt: skip
    lines = [_follows(span, times.range(schedule), t_start, t) for span in found]
    return Proof(name, "note", value, "; ".join(lines))


def _nothing(span: Span) -> str:
    if span.first == span.last:
        return f"at t = {span.first:.4g} (log-SNR {span.log_snr_first:.3g}) the answer says nothing about x0 or eps"
    return (
        f"from t = {span.first:.4g} to {span.last:.4g} (log-SNR {span.log_snr_first:.3g} to {span.log_snr_last:.3g}) "
        "the answer says nothing about x0 or eps"
    )


def _follows(span: Span, trained: tuple[float, float], t_start: float, t: Tensor) -> str:
    """What to set so that a run keeps off the span, which holds an end of the times that are used or none of them."""
    first, last = trained
    if span.last < first:
        return f"{_nothing(span)}; times.t_min={first:g} keeps off it"
    if span.first > max(last, t_start):
        return f"{_nothing(span)}; times.t_max={last:g} and sampling.t_start={t_start:g} keep off it"
    if span.first <= t[t >= first - 1e-12][0]:
        later = t[t > span.last][0].item()
        return f"{_nothing(span)}: set times.t_min={math.ceil(1000 * later - 1e-6) / 1000:g}"
    below = math.floor(1000 * t[t < span.first][-1].item() + 1e-6) / 1000
    keys = {"times.t_max": last, "sampling.t_start": t_start}
    needed = " ".join(f"{key}={below:g}" for key, value in keys.items() if value >= span.first)
    return f"{_nothing(span)}: set {needed}"


def _rounded(case: Case, dtype: torch.dtype) -> Proof:
    """What rounding the answer costs."""
    found = rounding(case.target, case.schedule, case.t, dtype)
    worst = max(found.x0.rms, found.eps.rms)
    said = f"rounding the answer moves x0 by {_moved(found.x0)} and eps by {_moved(found.eps)}, at worst"
    return Proof(found.dtype, "note" if worst > BAD else "ok", worst, said)


def _moved(worst: Worst) -> str:
    if not worst.above:
        return f"{worst.rms:.2g}"
    above = " and ".join(f"{span.first:.3g} to {span.last:.3g}" for span in worst.above)
    return f"{worst.rms:.2g} (at t = {worst.t:.4g}, log-SNR {worst.log_snr:.3g}; by more than {BAD:g} for t {above})"
