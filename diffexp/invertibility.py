"""How well x0 and eps can be told from a target: at which times not at all, and what rounding the answer costs.

    x0 = (b x_t - sigma y) / D,    eps = (alpha y - a x_t) / D,    D = alpha b - sigma a

Where the gain D is 0 the target says nothing about either. Near such a time an answer y must be very exact: a
relative error of it is one of |sigma / D| std(y) in x0 and of |alpha / D| std(y) in eps.
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

_NOTHING = 1e-12
"""|D| / (|alpha b| + |sigma a|) below which D is the rounding of a difference that is 0."""


@dataclass(frozen=True)
class Span:
    """Neighbouring times, from the first to the last, and the log-SNR there."""

    first: float
    last: float
    log_snr_first: float
    log_snr_last: float


def spans(found: Tensor, schedule: Schedule, t: PerImage) -> tuple[Span, ...]:
    """The runs of neighbouring `t`, increasing, at which `found` (any shape of as many) is true."""
    inside = torch.nn.functional.pad(found.flatten().int(), (1, 1)).diff()
    starts, ends = (cast(list[int], cast(Any, (inside == turn).nonzero().flatten()).tolist()) for turn in (1, -1))
    log_snr = schedule.log_snr(t)
    return tuple(
        Span(t[first].item(), t[last - 1].item(), log_snr[first].item(), log_snr[last - 1].item())
        for first, last in zip(starts, ends, strict=True)
    )


def trained_times(times: Times, schedule: Schedule) -> PerImage:
    """The times that training can meet, increasing, float64."""
    ends = torch.tensor(times.range(schedule), dtype=torch.float64)
    return increasing(ends, times(schedule, torch.arange(4096, dtype=torch.float64) / 4096))


def increasing(*times: Tensor) -> PerImage:
    """All of these times, any shapes, each once."""
    return cast(Tensor, cast(Any, torch.cat([t.flatten() for t in times])).unique()).reshape(-1, 1, 1, 1)


def singular(target: Target, schedule: Schedule, t: PerImage) -> Bool[Tensor, "batch 1 1 1"]:
    """Where x0 and eps cannot be told from the target, or where its gain has just changed sign; t increasing."""
    gain, (a, b, c) = target.gain(schedule, t), target.coefficients(schedule, t)
    alpha, sigma = schedule.amplitudes(t)
    back = torch.cat([b / gain, alpha / gain, a, b, c], dim=1)
    nothing = gain.abs() <= _NOTHING * ((alpha * b).abs() + (sigma * a).abs())
    turned = torch.cat([torch.zeros_like(gain[:1]), gain[1:] * gain[:-1]]) < 0
    return (~back.isfinite().all(1, keepdim=True)) | nothing | turned


BAD = 0.1
"""Root mean square error of a belief from rounding alone that is worth a note, for data of unit variance."""


@dataclass(frozen=True)
class Worst:
    """The largest root mean square error that rounding causes in one belief, and where.

    Attributes:
        rms: For data of unit variance.
        t: The time.
        log_snr: The log-SNR there.
        above: The times at which it exceeds `BAD`.
    """

    rms: float
    t: float
    log_snr: float
    above: tuple[Span, ...]


@dataclass(frozen=True)
class Rounding:
    """What becomes of x0 and eps when an exact answer is rounded to `dtype`, then read in float32."""

    dtype: str
    x0: Worst
    eps: Worst


def amplification(target: Target, schedule: Schedule, t: PerImage) -> tuple[PerImage, PerImage]:
    """|sigma / D| std(y) and |alpha / D| std(y): errors in x0 and eps for a relative error of the answer.

    For data of unit variance; the label noise is no part of an answer.
    """
    a, b, _ = target.coefficients(schedule, t)
    alpha, sigma = schedule.amplitudes(t)
    scale = torch.hypot(a, b) / (alpha * b - sigma * a).abs()
    return sigma * scale, alpha * scale


def rounding(target: Target, schedule: Schedule, t: PerImage, dtype: torch.dtype) -> Rounding:
    """What rounding to `dtype` costs at the times `t`, increasing, at which the target can be inverted.

    Where follows from the amplification; how much is measured there.
    """
    draws = Draws(0)
    x0, eps = (draws.normal((1, 1, 128, 128), 0, purpose, torch.float64) for purpose in ("x0", "eps"))
    relative = (x0.to(dtype).double() - x0).square().mean().sqrt()
    worst: list[Worst] = []
    for belief, factor in zip(("x0", "eps"), amplification(target, schedule, t), strict=True):
        at = t[factor.flatten().argmax()].reshape(1, 1, 1, 1)
        answer = target.draw(schedule, at, x0, eps, torch.zeros_like(x0)).to(dtype).float()
        read = target.solve(schedule, at, schedule.noised(at, x0, eps).float(), answer)
        error = (read.x0.double() - x0) if belief == "x0" else (read.eps.double() - eps)
        rms, above = error.square().mean().sqrt().item(), spans(relative * factor > BAD, schedule, t)
        worst.append(Worst(rms, at.item(), schedule.log_snr(at).item(), above))
    return Rounding(str(dtype).removeprefix("torch."), *worst)
