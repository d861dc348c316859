"""How well x0 and eps can be recovered from a target: at which times not at all, and what rounding costs.

    x0 = (b x_t - sigma y) / D,    eps = (alpha y - a x_t) / D,    D = alpha b - sigma a

Where the gain D is 0 the target determines neither. Near such a time small errors of a prediction y are amplified: a
relative error in y becomes an error of |sigma / D| std(y) in x0 and of |alpha / D| std(y) in eps.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from diffexp.draws import Draws
from diffexp.schedule import Schedule
from diffexp.shapes import PerImage
from diffexp.targets import Target
from diffexp.times import Times

_ZERO_GAIN = 1e-12
"""|D| / (|alpha b| + |sigma a|) below which D is 0 up to rounding."""


@dataclass(frozen=True)
class Span:
    """Neighbouring times, from the first to the last, and the log-SNR there."""

    first: float
    last: float
    log_snr_first: float
    log_snr_last: float


def spans(mask: Tensor, schedule: Schedule, t: PerImage) -> tuple[Span, ...]:
    """The runs of neighbouring `t`, increasing, at which `mask` (any shape of as many) is true."""
    inside = torch.nn.functional.pad(mask.flatten().int(), (1, 1)).diff()
    starts, ends = (cast(list[int], cast(Any, (inside == turn).nonzero().flatten()).tolist()) for turn in (1, -1))
    log_snr = schedule.log_snr(t)
    return tuple(
        Span(t[first].item(), t[last - 1].item(), log_snr[first].item(), log_snr[last - 1].item())
        for first, last in zip(starts, ends, strict=True)
    )


def trained_times(times: Times, schedule: Schedule) -> PerImage:
    """The times that training can use, increasing, float64."""
    ends = torch.tensor(times.range(schedule), dtype=torch.float64)
    return increasing(ends, times(schedule, torch.arange(4096, dtype=torch.float64) / 4096))


def increasing(*times: Tensor) -> PerImage:
    """All of these times, any shapes, each once."""
    return cast(Tensor, cast(Any, torch.cat([t.flatten() for t in times])).unique()).reshape(-1, 1, 1, 1)


def singular(target: Target, schedule: Schedule, t: PerImage) -> Bool[Tensor, "batch 1 1 1"]:
    """Where the target does not determine x0 and eps, or where its gain has just changed sign; t increasing."""
    gain, (a, b, c) = target.gain(schedule, t), target.coefficients(schedule, t)
    alpha, sigma = schedule.amplitudes(t)
    parts = torch.cat([b / gain, alpha / gain, a, b, c], dim=1)
    zero = gain.abs() <= _ZERO_GAIN * ((alpha * b).abs() + (sigma * a).abs())
    flipped = torch.cat([torch.zeros_like(gain[:1]), gain[1:] * gain[:-1]]) < 0
    return (~parts.isfinite().all(1, keepdim=True)) | zero | flipped


NOTABLE_ERROR = 0.1
"""RMS error of x0 or eps from rounding alone that is worth a note, for data of unit variance."""


@dataclass(frozen=True)
class RoundingError:
    """The largest RMS error over time that rounding a prediction causes in x0 or in eps, and where.

    Attributes:
        rms: For data of unit variance.
        t: The time.
        log_snr: The log-SNR there.
        above: The times at which it exceeds `NOTABLE_ERROR`.
    """

    rms: float
    t: float
    log_snr: float
    above: tuple[Span, ...]


@dataclass(frozen=True)
class Rounding:
    """The errors of x0 and eps when an exact prediction is rounded to `dtype`, then converted in float32."""

    dtype: str
    x0: RoundingError
    eps: RoundingError


def amplification(target: Target, schedule: Schedule, t: PerImage) -> tuple[PerImage, PerImage]:
    """|sigma / D| std(y) and |alpha / D| std(y): errors in x0 and eps for a relative error of the prediction.

    For data of unit variance; std(y) is that of the prediction, without label noise.
    """
    a, b, _ = target.coefficients(schedule, t)
    alpha, sigma = schedule.amplitudes(t)
    scale = torch.hypot(a, b) / (alpha * b - sigma * a).abs()
    return sigma * scale, alpha * scale


def rounding(target: Target, schedule: Schedule, t: PerImage, dtype: torch.dtype) -> Rounding:
    """The cost of rounding to `dtype` over the times `t`, increasing, at which the target can be inverted.

    The amplification gives the worst time; the error is measured there.
    """
    draws = Draws(0)
    x0, eps = (draws.normal((1, 1, 128, 128), 0, purpose, torch.float64) for purpose in ("x0", "eps"))
    relative = (x0.to(dtype).double() - x0).square().mean().sqrt()
    worst: list[RoundingError] = []
    for name, factor in zip(("x0", "eps"), amplification(target, schedule, t), strict=True):
        at = t[factor.flatten().argmax()].reshape(1, 1, 1, 1)
        prediction = target.draw(schedule, at, x0, eps, torch.zeros_like(x0)).to(dtype).float()
        estimate = target.solve(schedule, at, schedule.noised(at, x0, eps).float(), prediction)
        error = (estimate.x0.double() - x0) if name == "x0" else (estimate.eps.double() - eps)
        rms, above = error.square().mean().sqrt().item(), spans(relative * factor > NOTABLE_ERROR, schedule, t)
        worst.append(RoundingError(rms, at.item(), schedule.log_snr(at).item(), above))
    return Rounding(str(dtype).removeprefix("torch."), *worst)
