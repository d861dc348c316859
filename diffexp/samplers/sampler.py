"""A sampler: which times it visits, and how it goes from one to the next."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers import grids
from diffexp.samplers.beliefs import Beliefs, Believes
from diffexp.samplers.strides import Stride, strides
from diffexp.schedule import Schedule
from diffexp.shapes import Images
from diffexp.targets import Estimate

Fresh: TypeAlias = Callable[[int], Tensor]
"""The fresh noise of stride i."""


@dataclass
class Sampler(ABC):
    """A walk down a grid of times.

    Attributes:
        steps: Number of strides; a grid of one's own gives it.
        clip: Clamp each belief about x0 to [-1, 1] and recompute eps and the score from it.
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
            self._take_own_grid(self.grid)
        elif self.grid not in grids.NAMES:
            raise UserError(
                f"sampler.grid={self.grid}: there are {', '.join(grids.NAMES)}, or a list of decreasing times."
            )
        if self.steps < 1 or not 0 <= self.t_end < self.t_start <= 1:
            raise UserError(f"{self!r}: needs steps >= 1 and 0 <= t_end < t_start <= 1.")

    def _take_own_grid(self, grid: Tensor | Sequence[float]) -> None:
        times = grids.own(grid if isinstance(grid, Tensor) else torch.tensor(list(grid), dtype=torch.float64)).cpu()
        given = {"steps": len(times) - 1, "t_start": times[0].item(), "t_end": times[-1].item()}
        for name, value in given.items():
            said = getattr(self, name)
            if said not in (value, getattr(type(self), name)):  # the default stands for "not said"
                raise UserError(
                    f"sampler.{name}={said} with a sampler.grid of {len(times)} times from {given['t_start']:g} to "
                    f"{given['t_end']:g}: the grid gives {name}={value:g}. Leave one of the two out."
                )
            setattr(self, name, value)
        self.grid = times

    def times(self, schedule: Schedule) -> Tensor:
        """The grid, decreasing, float64 (steps + 1,).

        Raises:
            UserError: The grid visits times that the chain does not have.
        """
        if isinstance(self.grid, Tensor):
            return self._on(schedule, schedule.exact(self.grid))
        if schedule.is_chain and 0 < self.t_end < 1 / schedule.steps - 1e-12:
            self._on(schedule, torch.tensor([self.t_end], dtype=torch.float64))
        return self._on(schedule, grids.spaced(str(self.grid), schedule, self.steps, self.t_start, self.t_end))

    def _on(self, schedule: Schedule, times: Tensor) -> Tensor:
        before_the_first = times[(times > 0) & (times < 1 / schedule.steps - 1e-12)]
        if schedule.is_chain and before_the_first.numel():
            most = math.floor(self.t_start * schedule.steps + 1e-9)
            raise UserError(
                f"sampler.steps={self.steps} on a chain of {schedule.steps}: the grid has t = "
                f"{before_the_first[0].item():g}, and a chain has no times in (0, {1 / schedule.steps:g}). Keep "
                f"sampling.t_end and a grid of your own off them, set sampler.steps={most} or fewer or "
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
        denoiser: Believes,
        x: Images,
        generator: torch.Generator | None = None,
        noise: Fresh | None = None,
    ) -> Images:
        """Carry x from the first time of the grid to the last.

        Args:
            denoiser: Anything with a `.schedule` that maps (x_t, t) to an Estimate.
            x: Noise at the level of t_start, see `start`.
            generator: Source of the fresh noise, on x's device.
            noise: Replaces fresh noise at stride i, given i.

        Returns:
            Images at t_end, in x's dtype, not clamped.
        """

        def fresh(stride: int) -> Tensor:
            if noise is not None:
                return noise(stride)
            return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

        beliefs, times = Beliefs(denoiser, self.clip), self.times(denoiser.schedule)
        end = self.walk(x, beliefs, times, fresh)
        self.nfe = beliefs.asked
        return end

    @abstractmethod
    def walk(self, x: Images, beliefs: Beliefs, times: Tensor, fresh: Fresh) -> Images:
        """Carry x down the times."""


@dataclass
class OneBelief(Sampler):
    """A sampler that makes each stride from the belief at its upper end alone."""

    def walk(self, x: Images, beliefs: Beliefs, times: Tensor, fresh: Fresh) -> Images:
        for i, stride in enumerate(strides(beliefs.schedule, times)):
            mean, std = self.move(beliefs(x, stride.t), stride)
            x = mean + std * fresh(i) if std > 0 else mean
        return x

    @abstractmethod
    def move(self, belief: Estimate, stride: Stride) -> tuple[Images, float]:
        """Mean and standard deviation of the image at s."""


def refuse_no_image(method: str, schedule: Schedule, t: float) -> None:
    """Refuse to start where alpha = 0.

    Raises:
        UserError: Nothing of the image is left at t.
    """
    if not schedule.alpha(torch.full((1, 1, 1, 1), t, dtype=torch.float64)).item() > 0:
        raise UserError(
            f"{method} from t_start={t:g} on {schedule!r}: it divides by alpha, which is 0 there. Set "
            "sampling.t_start=0.999, or take sampler=ddim."
        )
