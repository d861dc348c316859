"""Grids of times, the strides between their times, and the schedule's levels and rates there, in float64.

A grid is spaced equally in time, in log-SNR, or in Karras' power of the noise level. The last two are spaced over noise
levels n = sigma / alpha and begin at the level of t_start. One that ends at t = 0, where n = 0 and equal strides cannot
reach, has its last time before it at n = 0.002 (Karras et al. 2022, arXiv:2206.00364, table 1) or at a chain's first
step, whichever is noisier.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.schedule import Schedule

RHO = 7.0
"""Karras et al. 2022, eq. 5: the levels are equally spaced in n^(1 / RHO)."""

SPACINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "log_snr": (lambda log_snr: log_snr, lambda place: place),
    "karras": (lambda log_snr: (-log_snr / 2 / RHO).exp(), lambda place: -2 * RHO * place.log()),
}
"""The equally spaced quantity as a function of log-SNR, and its inverse."""

NAMES = ("time", *SPACINGS)


def last_time(schedule: Schedule) -> float:
    """The last time before 0 of a grid spaced over noise levels."""
    return schedule.time(-2 * torch.tensor(0.002, dtype=torch.float64).log()).item()


def spaced(name: str, schedule: Schedule, steps: int, t_start: float, t_end: float) -> Tensor:
    """The grid called `name`, decreasing, float64 (steps + 1,).

    Where nothing of the image is left at t_start (log-SNR is minus infinity), the levels are spaced as if from the end
    of the schedule's own time range; the grid still begins at t_start.

    Raises:
        ValueError: t_start lies at or below the last time before 0.
    """
    if name == "time":
        return torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)
    forward, back = SPACINGS[name]
    low = t_end or last_time(schedule)
    if t_start <= low:
        raise UserError(
            f"sampler.grid={name} from t_start={t_start:g}: its last time before 0 is {low:g}. Start above it, or take "
            "sampler.grid=time."
        )
    ends = schedule.log_snr(torch.tensor([t_start, schedule.time_range[1], low], dtype=torch.float64).view(3, 1, 1, 1))
    start, inner, last = ends.flatten()
    places = forward(torch.stack([start if start.isfinite() else inner, last]))
    count = steps + 1 if t_end else steps
    times = schedule.time(back(torch.linspace(float(places[0]), float(places[1]), count, dtype=torch.float64)))
    times[0] = t_start
    if not t_end:
        return torch.cat([times, torch.zeros_like(times[:1])])
    times[-1] = t_end
    return times


def validate_times(grid: Tensor) -> Tensor:
    """A custom grid, unchanged.

    Raises:
        UserError: They are not at least two decreasing numbers in [0, 1].
    """
    if grid.ndim != 1 or len(grid) < 2 or not bool(((grid >= 0) & (grid <= 1)).all() and (grid.diff() < 0).all()):
        raise UserError(
            f"sampler.grid={list(map(float, grid.flatten()))}: a custom grid is two or more decreasing times in "
            f"[0, 1], for example [1, 0.5, 0]; or take one of {', '.join(NAMES)}."
        )
    return grid


@dataclass(frozen=True)
class Stride:
    """The levels at both ends of one step from t down to s < t.

    `ratio` = alpha_t / alpha_s and `beta` = sigma_t^2 - ratio^2 sigma_s^2, the variance that q adds from s
    to t.
    """

    t: float
    s: float
    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float
    log_snr_t: float
    log_snr_s: float
    ratio: float
    beta: float

    @property
    def beta_tilde(self) -> float:
        """Variance of q(x_s | x_t, x0)."""
        return self.beta * (self.sigma_s / self.sigma_t) ** 2


def strides(schedule: Schedule, times: Tensor) -> list[Stride]:
    """The strides between decreasing times, float64 (steps + 1,)."""
    t = times.reshape(-1, 1, 1, 1)
    levels = (schedule.alpha, schedule.sigma, schedule.log_snr)
    alpha, sigma, log_snr = (level(t).flatten() for level in levels)
    beta = -sigma[:-1].square() * (log_snr[:-1] - log_snr[1:]).expm1()
    ends = (part[side] for part in (times, alpha, sigma, log_snr) for side in (slice(-1), slice(1, None)))
    columns = (*ends, alpha[:-1] / alpha[1:], beta)
    return [Stride(*row) for row in zip(*(map(float, column) for column in columns), strict=True)]


def rates(schedule: Schedule, t: float) -> tuple[float, float]:
    """(d alpha / dt, d sigma / dt), in float64."""
    d_alpha, d_sigma = schedule.rates(torch.full((1, 1, 1, 1), t, dtype=torch.float64))
    return d_alpha.item(), d_sigma.item()


def require_rates(method: str, schedule: Schedule) -> None:
    """Check that the schedule is differentiable in t.

    A chain's log-SNR could be differentiated between its steps, but jumps to infinity before the first, so that no
    path in t leads to the image.

    Raises:
        UserError: The schedule is a chain.
    """
    if schedule.is_chain:
        raise UserError(
            f"{method} needs d alpha / dt, which the chain {schedule!r} does not have. Take schedule=linear_beta_cont, "
            "the equation that DDPM's chain discretises; or on the chain sampler=ancestral in place of the reverse "
            "SDE, sampler=ddim or heun in place of the probability flow."
        )
