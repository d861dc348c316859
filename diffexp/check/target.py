"""A target on a schedule: whether it is correct, and where it cannot be inverted.

All checks run on the times that training and sampling would use.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp.check.checks import (
    ALGEBRA,
    Case,
    CheckResult,
    coefficients_are_numbers,
    describe,
    one_dimensional_times_raise,
    run_check,
)
from diffexp.invertibility import (
    NOTABLE_ERROR,
    RoundingError,
    Span,
    increasing,
    rounding,
    singular,
    spans,
    trained_times,
)
from diffexp.schedule import Schedule
from diffexp.shapes import PerImage
from diffexp.targets import Target
from diffexp.times import Times

_UNDETERMINED = "the target does not determine x0 and eps"


@dataclass(frozen=True)
class TargetReport:
    """One target on one schedule.

    Attributes:
        undefined: Why the target does not exist on this schedule; then there are no results.
        results: In the order of the checks; where the coefficients are not numbers no other check can run.
    """

    undefined: str | None = None
    results: tuple[CheckResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(result.verdict != "FAILED" for result in self.results)


def check_target(target: Target, schedule: Schedule, times: Times, t_start: float = 1.0) -> TargetReport:
    """Run every check of the target on this schedule.

    Args:
        target: Any; its exceptions become results.
        schedule: Makes x_t.
        times: How training times are drawn.
        t_start: Where samplers start.
    """
    t = trained_times(times, schedule)
    try:
        target.coefficients(schedule, t)
    except ValueError as error:
        return TargetReport(undefined=describe(error))
    except Exception as error:
        return TargetReport(results=(CheckResult("coefficients", "FAILED", None, describe(error)),))
    case = Case(target, schedule, t)
    results = [
        run_check("coefficients", coefficients_are_numbers, case),
        run_check("time shape", one_dimensional_times_raise, case),
    ]
    if results[0].verdict == "FAILED":
        return TargetReport(results=tuple(results))
    usage = _usage(target, schedule, times, t_start)
    case = Case(target, schedule, _thinned(usage.t[usage.used & ~usage.singular]))
    results += [run_check(name, check, case) for name, check in ALGEBRA.items()] if len(case.t) else []
    results.append(_invertible(schedule, usage))
    if all(result.verdict != "FAILED" for result in results):
        results += [_rounded(case, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return TargetReport(results=tuple(results))


def _thinned(t: Tensor, most: int = 1000) -> PerImage:
    """At most so many of the times, the first and the last among them."""
    return t[torch.linspace(0, len(t) - 1, min(len(t), most)).long()].reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class _Usage:
    """All times of a schedule, increasing (n,); which are trained on or sampled at; where the target is singular."""

    t: Tensor
    used: Tensor
    singular: Tensor
    trained: tuple[float, float]
    t_start: float


def _usage(target: Target, schedule: Schedule, times: Times, t_start: float) -> _Usage:
    first, last = times.range(schedule)
    steps = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
    t = increasing(steps) if schedule.is_chain else increasing(steps, trained_times(times, schedule))
    used = (t >= first - 1e-12) & (t <= max(last, t_start) + 1e-12)
    return _Usage(t.flatten(), used.flatten(), singular(target, schedule, t).flatten(), (first, last), t_start)


def _invertible(schedule: Schedule, usage: _Usage) -> CheckResult:
    """At which times x0 and eps do not follow from the target, and which settings avoid them."""
    t, used, bad = usage.t, usage.used, usage.singular
    if bad[used].all():
        message = f"{_UNDETERMINED} at any time: gain = alpha b - sigma a is 0, so y is a multiple of x_t."
        return CheckResult("invertible", "FAILED", 1.0, message)
    share = bad[used].double().mean().item()
    found = spans(bad, schedule, t.reshape(-1, 1, 1, 1))
    if not found:
        return CheckResult("invertible", "ok", share, "x0 and eps follow from the target at every time")
    low, high = t[used][0].item(), t[used][-1].item()
    inside = [span for span in found if span.first > low and span.last < high]
    if inside:
        message = (
            f"{_where(inside[0])} {_UNDETERMINED}, between times that are used: its gain alpha b - sigma a changes "
            "sign there, or is 0. Stay on one side of it, with times.t_max= and sampling.t_start= below it or "
            "times.t_min= above it."
        )
        return CheckResult("invertible", "FAILED", share, message)
    lines = [f"{_where(span)} {_UNDETERMINED}{_avoided(span, usage)}" for span in found]
    return CheckResult("invertible", "note", share, "; ".join(lines))


def _where(span: Span) -> str:
    if span.first == span.last:
        return f"at t = {span.first:.4g} (log-SNR {span.log_snr_first:.3g})"
    return f"from t = {span.first:.4g} to {span.last:.4g} (log-SNR {span.log_snr_first:.3g} to {span.log_snr_last:.3g})"


def _avoided(span: Span, usage: _Usage) -> str:
    """The settings with which a run avoids the span, which holds an end of the times that are used or none of them."""
    (first, last), t_start, t = usage.trained, usage.t_start, usage.t
    if span.last < first:
        return f"; times.t_min={first:g} avoids it"
    if span.first > max(last, t_start):
        return f"; times.t_max={last:g} and sampling.t_start={t_start:g} avoid it"
    if span.first <= t[t >= first - 1e-12][0]:
        later = t[t > span.last][0].item()
        return f": set times.t_min={math.ceil(1000 * later - 1e-6) / 1000:g}"
    below = math.floor(1000 * t[t < span.first][-1].item() + 1e-6) / 1000
    keys = {"times.t_max": last, "sampling.t_start": t_start}
    return ": set " + " ".join(f"{key}={below:g}" for key, value in keys.items() if value >= span.first)


def _rounded(case: Case, dtype: torch.dtype) -> CheckResult:
    """The cost of rounding a prediction."""
    found = rounding(case.target, case.schedule, case.t, dtype)
    worst = max(found.x0.rms, found.eps.rms)
    message = f"rounding the prediction changes x0 by {_change(found.x0)} and eps by {_change(found.eps)} at worst"
    return CheckResult(found.dtype, "note" if worst > NOTABLE_ERROR else "ok", worst, message)


def _change(error: RoundingError) -> str:
    if not error.above:
        return f"{error.rms:.2g}"
    above = " and ".join(f"{span.first:.3g} to {span.last:.3g}" for span in error.above)
    where = f"at t = {error.t:.4g}, log-SNR {error.log_snr:.3g}"
    return f"{error.rms:.2g} ({where}; above {NOTABLE_ERROR:g} for t {above})"
