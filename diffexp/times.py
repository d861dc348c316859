"""How training times are drawn: a density over [t_min, t_max], given by its quantiles.

The expected gradient depends only on density x weight, so a density can replace a weighting and vice versa;
what differs is the gradient's variance. On a chain every time is moved up to the next k / T.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.schedule import Schedule
from diffexp.shapes import PerImage

_normal_quantile = cast(Callable[[Tensor], Tensor], torch.special.ndtri)  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True)
class Times(ABC):
    """A density over times.

    Attributes:
        t_min: Earliest time used; None: the schedule's own (1/T on a chain, 1e-3 otherwise).
        t_max: Latest time used; None: the schedule's own (1 on a chain, 1 - 1e-3 otherwise).
    """

    t_min: float | None = None
    t_max: float | None = None

    def range(self, schedule: Schedule) -> tuple[float, float]:
        """The (t_min, t_max) in force.

        Raises:
            UserError: It is empty or leaves the times that exist.
        """
        low, high = schedule.time_range
        first = low if self.t_min is None else self.t_min
        last = high if self.t_max is None else self.t_max
        earliest = low if schedule.is_chain else 0.0
        usable = earliest - 1e-12 <= first < last <= 1
        if usable and schedule.is_chain:
            lowest, highest = _steps_between(schedule, first, last)
            usable = lowest <= highest
        if not usable:
            between = " with a step k / T between them" if schedule.is_chain else ""
            raise UserError(
                f"times.t_min={first:g} times.t_max={last:g}: need {earliest:g} <= t_min < t_max <= 1"
                f"{between} on {schedule!r}, for example its own range {low:g} to {high:g}."
            )
        return first, last

    def __call__(self, schedule: Schedule, u: Tensor) -> PerImage:
        """The times at quantiles `u` in [0, 1) of any shape, float64 (u.numel(), 1, 1, 1)."""
        first, last = self.range(schedule)
        u = u.double().reshape(-1, 1, 1, 1)
        if not schedule.is_chain:
            return self.quantile(schedule, u, first, last).clamp(first, last)
        steps = schedule.steps
        lowest, highest = _steps_between(schedule, first, last)
        t = self.quantile(schedule, u, (lowest - 1) / steps, highest / steps)
        return ((t * steps).floor() + 1).clamp(lowest, highest) / steps

    @abstractmethod
    def quantile(self, schedule: Schedule, u: Tensor, first: float, last: float) -> Tensor:
        """Inverse of the distribution function of the density restricted to [first, last]."""


@dataclass(frozen=True)
class Uniform(Times):
    """Every time equally likely; on a chain every step."""

    def quantile(self, schedule: Schedule, u: Tensor, first: float, last: float) -> Tensor:
        return first + u * (last - first)


@dataclass(frozen=True)
class LogitNormal(Times):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, arXiv:2403.03206, eq. 19).

    Attributes:
        mean: Below 0 favours low noise.
        std: Width.
    """

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, schedule: Schedule, u: Tensor, first: float, last: float) -> Tensor:
        return torch.sigmoid(_truncated_normal(u, _logit(first), _logit(last), self.mean, self.std))


@dataclass(frozen=True)
class LogNormal(Times):
    """log(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, arXiv:2206.00364, table 1).

    Attributes:
        mean: The paper's P_mean.
        std: The paper's P_std.
    """

    mean: float = -1.2
    std: float = 1.2

    def quantile(self, schedule: Schedule, u: Tensor, first: float, last: float) -> Tensor:
        # A step covers the noise levels nearest to its own, so on a chain the density is shifted by half a step.
        late = 0.5 / schedule.steps if schedule.is_chain else 0.0
        low, high = max(first + late, schedule.time_range[0] if late else 0.0), min(last + late, 1.0)
        # On the CPU, where reading a number does not synchronise a GPU.
        ends = (torch.full((1, 1, 1, 1), end, dtype=torch.float64) for end in (low, high))
        least, most = (-schedule.log_snr(end).item() / 2 for end in ends)
        return schedule.time(-2 * _truncated_normal(u, least, most, self.mean, self.std)) - late


def _steps_between(schedule: Schedule, first: float, last: float) -> tuple[int, int]:
    """The first and the last k with first <= k / T <= last, but for rounding."""
    return math.ceil(first * schedule.steps - 1e-6), math.floor(last * schedule.steps + 1e-6)


def _logit(t: float) -> float:
    """log(t / (1 - t)), infinite at the ends."""
    if t in (0.0, 1.0):
        return math.inf if t else -math.inf
    return math.log(t) - math.log1p(-t)


def _truncated_normal(u: Tensor, low: float, high: float, mean: float, std: float) -> Tensor:
    """Quantiles of N(mean, std^2) restricted to [low, high]."""
    first, last = (low - mean) / std, (high - mean) / std
    side = -1 if first > 0 else 1  # in the upper tail only the mirror image has digits left
    below, above = (math.erfc(-side * end / math.sqrt(2)) / 2 for end in (first, last))
    return mean + std * (side * _normal_quantile(below + u * (above - below))).clamp(first, last)
