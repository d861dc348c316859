"""Grids of times: equal strides of time, of log-SNR, or of Karras' power of the noise level.

The last two are spaced over noise levels n = sigma / alpha. They begin at the level of t_start. One that ends at
t = 0, where n = 0 is out of reach of equal strides, has its last time before it at n = 0.002 (Karras et al. 2022,
arXiv:2206.00364, table 1) or at a chain's first step, whichever is noisier.
"""

from collections.abc import Callable

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
"""What grows in equal strides, as a function of log-SNR, and the way back."""

NAMES = ("time", *SPACINGS)


def last_time(schedule: Schedule) -> float:
    """The last time before 0 of a grid spaced over noise levels."""
    return schedule.time(-2 * torch.tensor(0.002, dtype=torch.float64).log()).item()


def spaced(name: str, schedule: Schedule, steps: int, t_start: float, t_end: float) -> Tensor:
    """The grid called `name`, decreasing, float64 (steps + 1,).

    Where no image is left at t_start (log-SNR is minus infinity), the levels are spaced as if from the end of the
    schedule's own time range; the grid still begins at t_start.

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


def own(grid: Tensor) -> Tensor:
    """Times that a person chose, as given.

    Raises:
        UserError: They are not at least two decreasing numbers in [0, 1].
    """
    if grid.ndim != 1 or len(grid) < 2 or not bool(((grid >= 0) & (grid <= 1)).all() and (grid.diff() < 0).all()):
        raise UserError(
            f"sampler.grid={list(map(float, grid.flatten()))}: a grid of one's own is two or more decreasing times in "
            f"[0, 1], for example [1, 0.5, 0]; or take one of {', '.join(NAMES)}."
        )
    return grid
