"""A sampler: which times it visits, how it goes from one to the next, and what it needs of a denoiser."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers import grids
from diffexp.samplers.grids import Stride, strides
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Estimate

StrideNoise: TypeAlias = Callable[[int], Tensor]
"""Unit noise of stride i, shaped like the images."""


@runtime_checkable
class DenoiserLike(Protocol):
    """All that a sampler needs of a denoiser."""

    schedule: Schedule

    def __call__(self, x_t: Images, t: PerImage) -> Estimate: ...


class CountingDenoiser:
    """A denoiser evaluated on all images at one time: counted and, on request, clipped.

    Args:
        denoiser: What is evaluated.
        clip: Clamp each prediction of x0 to [-1, 1], and recompute eps and the score from it.

    Attributes:
        evaluations: Number of calls so far.
    """

    def __init__(self, denoiser: DenoiserLike, clip: bool) -> None:
        self.schedule, self.evaluations = denoiser.schedule, 0
        self._denoiser, self._clip = denoiser, clip

    def __call__(self, x_t: Images, t: float) -> Estimate:
        self.evaluations += 1
        estimate = self._denoiser(x_t, torch.full((len(x_t), 1, 1, 1), t, dtype=x_t.dtype, device=x_t.device))
        if not self._clip:
            return estimate
        time = torch.full((1, 1, 1, 1), t, dtype=torch.float64)
        alpha, sigma = self.schedule.alpha(time).item(), self.schedule.sigma(time).item()
        x0 = estimate.x0.clamp(-1, 1)
        eps = (x_t - alpha * x0) / sigma
        return Estimate(x0, eps, -eps / sigma)


@dataclass
class Sampler(ABC):
    """A walk down a grid of times.

    Attributes:
        steps: Number of strides; a custom grid determines it.
        clip: Clamp each prediction of x0 to [-1, 1] and recompute eps and the score from it.
        t_start: Where the walk begins; images passed in are noise of that time's level.
        t_end: Where it ends.
        grid: Equal strides of `time`, of `log_snr` or of `karras` (see `grids`); or the times themselves,
            decreasing, both ends included. On a chain none may lie in (0, 1/T).
        nfe: Network evaluations of the last call.
    """

    steps: int = 50
    clip: bool = field(default=False, kw_only=True)
    t_start: float = field(default=1.0, kw_only=True)
    t_end: float = field(default=0.0, kw_only=True)
    grid: str | Tensor | Sequence[float] = field(default="time", kw_only=True)
    nfe: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.grid, str):
            self._set_custom_grid(self.grid)
        elif self.grid not in grids.NAMES:
            raise UserError(
                f"sampler.grid={self.grid}: there are {', '.join(grids.NAMES)}, or a list of decreasing times."
            )
        if self.steps < 1 or not 0 <= self.t_end < self.t_start <= 1:
            raise UserError(f"{self!r}: needs steps >= 1 and 0 <= t_end < t_start <= 1.")

    def _set_custom_grid(self, grid: Tensor | Sequence[float]) -> None:
        times = grids.validate_times(
            grid if isinstance(grid, Tensor) else torch.tensor(list(grid), dtype=torch.float64)
        ).cpu()
        implied = {"steps": len(times) - 1, "t_start": times[0].item(), "t_end": times[-1].item()}
        for name, value in implied.items():
            current = getattr(self, name)
            if current not in (value, getattr(type(self), name)):  # the default counts as not set
                raise UserError(
                    f"sampler.{name}={current} with a sampler.grid of {len(times)} times from {implied['t_start']:g} "
                    f"to {implied['t_end']:g}: the grid implies {name}={value:g}. Leave one of the two out."
                )
            setattr(self, name, value)
        self.grid = times

    def times(self, schedule: Schedule) -> Tensor:
        """The grid, decreasing, float64 (steps + 1,).

        Raises:
            UserError: The grid visits times that the chain does not have.
        """
        if isinstance(self.grid, Tensor):
            return self._on_chain(schedule, schedule.exact(self.grid))
        if schedule.is_chain and 0 < self.t_end < 1 / schedule.steps - 1e-12:
            self._on_chain(schedule, torch.tensor([self.t_end], dtype=torch.float64))
        return self._on_chain(schedule, grids.spaced(str(self.grid), schedule, self.steps, self.t_start, self.t_end))

    def _on_chain(self, schedule: Schedule, times: Tensor) -> Tensor:
        before_the_first = times[(times > 0) & (times < 1 / schedule.steps - 1e-12)]
        if schedule.is_chain and before_the_first.numel():
            most = math.floor(self.t_start * schedule.steps + 1e-9)
            raise UserError(
                f"sampler.steps={self.steps} on a chain of {schedule.steps}: the grid has t = "
                f"{before_the_first[0].item():g}, and a chain has no times in (0, {1 / schedule.steps:g}). Keep "
                f"sampling.t_end and a custom grid off them, set sampler.steps={most} or fewer or "
                "sampler.grid=log_snr, or take a continuous schedule."
            )
        return times

    def start(self, schedule: Schedule, noise: Images) -> Images:
        """Unit noise, brought to the level at which the walk begins."""
        t = torch.full((1, 1, 1, 1), self.t_start, dtype=torch.float64)
        return noise * schedule.sigma(t).item()

    @torch.no_grad()
    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Images,
        generator: torch.Generator | None = None,
        noise: StrideNoise | None = None,
    ) -> Images:
        """Carry x from the first time of the grid to the last.

        Args:
            denoiser: Anything with a `.schedule` that maps (x_t, t) to an Estimate.
            x: Noise at the level of t_start, see `start`.
            generator: Source of the strides' noise, on x's device.
            noise: Replaces it: noise(i) is that of stride i.

        Returns:
            Images at t_end, in x's dtype, not clamped.
        """

        def drawn(stride: int) -> Tensor:
            return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

        counting, times = CountingDenoiser(denoiser, self.clip), self.times(denoiser.schedule)
        images = self.walk(x, counting, times, drawn if noise is None else noise)
        self.nfe = counting.evaluations
        return images

    @abstractmethod
    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        """Carry x down the times."""


@dataclass
class OneEvaluation(Sampler):
    """A sampler that makes each stride from the prediction at its upper end alone."""

    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        for i, stride in enumerate(strides(denoiser.schedule, times)):
            mean, std = self.move(denoiser(x, stride.t), stride)
            x = mean + std * noise(i) if std > 0 else mean
        return x

    @abstractmethod
    def move(self, estimate: Estimate, stride: Stride) -> tuple[Images, float]:
        """Mean and standard deviation of the image at s."""


def require_signal(method: str, schedule: Schedule, t: float) -> None:
    """Check that alpha > 0 at t.

    Raises:
        UserError: Nothing of the image is left at t.
    """
    if not schedule.alpha(torch.full((1, 1, 1, 1), t, dtype=torch.float64)).item() > 0:
        raise UserError(
            f"{method} from t_start={t:g} on {schedule!r}: it divides by alpha, which is 0 there. Set "
            "sampling.t_start=0.999, or take sampler=ddim."
        )
