"""From noise to images, through one Estimate, whatever the network predicts.

A sampler walks down a grid of times t > s. Everything it needs of a step is the belief (x0, eps) at t and the
levels of the schedule at both ends, which are taken in float64 before the walk begins.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Estimate


@runtime_checkable
class Believes(Protocol):
    """All that a sampler asks of a denoiser."""

    schedule: Schedule

    def __call__(self, x_t: Images, t: PerImage) -> Estimate: ...


@dataclass(frozen=True)
class Stride:
    """The levels at both ends of one step from t down to s.

    `ratio` = alpha_t / alpha_s and `beta` = sigma_t^2 - ratio^2 sigma_s^2, the variance that q adds from s
    to t.
    """

    alpha_t: float
    sigma_t: float
    alpha_s: float
    sigma_s: float
    ratio: float
    beta: float

    @property
    def beta_tilde(self) -> float:
        """Variance of q(x_s | x_t, x0)."""
        return self.beta * (self.sigma_s / self.sigma_t) ** 2


@dataclass
class Sampler(ABC):
    """A walk in `steps` equal strides of time.

    Attributes:
        steps: Number of strides; on a chain at most its T.
        clip: Clamp each belief about x0 to [-1, 1] and recompute eps from it.
        t_start: Where the walk begins; images passed in are noise of that time's level.
        t_end: Where it ends.
        nfe: Network evaluations of the last call.
    """

    steps: int = 50
    clip: bool = field(default=False, kw_only=True)
    t_start: float = field(default=1.0, kw_only=True)
    t_end: float = field(default=0.0, kw_only=True)
    nfe: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.t_end < self.t_start <= 1:
            raise ValueError(f"{self!r}: needs steps >= 1 and 0 <= t_end < t_start <= 1.")

    def times(self, schedule: Schedule) -> Tensor:
        """The grid, decreasing, float64 (steps + 1,).

        Raises:
            ValueError: More steps than the chain has.
        """
        if schedule.is_chain and self.steps > schedule.steps:
            raise ValueError(
                f"sampler.steps={self.steps} on a chain of {schedule.steps}: it has no times in between. Set "
                f"sampler.steps={schedule.steps} or fewer, or take a continuous schedule."
            )
        return torch.linspace(self.t_start, self.t_end, self.steps + 1, dtype=torch.float64)

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
        noise: Callable[[int], Tensor] | None = None,
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

        grid = self.times(denoiser.schedule)
        times = [torch.full((len(x), 1, 1, 1), t, dtype=x.dtype, device=x.device) for t in map(float, grid)]
        self.nfe = 0
        for i, stride in enumerate(_strides(denoiser.schedule, grid)):
            self.nfe += 1
            belief = denoiser(x, times[i])
            if self.clip:
                x0 = belief.x0.clamp(-1, 1)
                eps = (x - stride.alpha_t * x0) / stride.sigma_t
                belief = Estimate(x0, eps, -eps / stride.sigma_t)
            mean, std = self.move(belief, stride)
            x = mean + std * fresh(i) if std > 0 else mean
        return x

    @abstractmethod
    def move(self, belief: Estimate, stride: Stride) -> tuple[Images, float]:
        """Mean and standard deviation of the image at s."""


@dataclass
class Ddim(Sampler):
    """DDIM (Song, Meng & Ermon 2021, arXiv:2010.02502, eq. 12 and 16).

    Attributes:
        eta: 0 is deterministic; 1 is `Ancestral` with variance beta_tilde.
    """

    eta: float = 0.0

    def move(self, belief: Estimate, stride: Stride) -> tuple[Images, float]:
        variance = self.eta**2 * stride.beta_tilde
        kept = max(stride.sigma_s**2 - variance, 0.0) ** 0.5
        return stride.alpha_s * belief.x0 + kept * belief.eps, variance**0.5


@dataclass
class Ancestral(Sampler):
    """DDPM's reverse chain (Ho et al. 2020, arXiv:2006.11239, algorithm 2); the last step adds no noise.

    Attributes:
        variance: beta is right for unit normal data, beta_tilde for a single image.
    """

    steps: int = 1000
    variance: Literal["beta", "beta_tilde"] = "beta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in ("beta", "beta_tilde"):
            raise ValueError(f"sampler.variance={self.variance}: there are beta and beta_tilde.")

    def move(self, belief: Estimate, stride: Stride) -> tuple[Images, float]:
        mean = stride.alpha_s * belief.x0 + stride.ratio * stride.sigma_s**2 / stride.sigma_t * belief.eps
        variance = stride.beta if self.variance == "beta" else stride.beta_tilde
        return mean, variance**0.5 if stride.sigma_s > 0 else 0.0


def _strides(schedule: Schedule, grid: Tensor) -> list[Stride]:
    t = grid.reshape(-1, 1, 1, 1)
    levels = (schedule.alpha, schedule.sigma, schedule.log_snr)
    alpha, sigma, log_snr = (level(t).flatten() for level in levels)
    beta = -sigma[:-1].square() * (log_snr[:-1] - log_snr[1:]).expm1()
    columns = (alpha[:-1], sigma[:-1], alpha[1:], sigma[1:], alpha[:-1] / alpha[1:], beta)
    return [Stride(*row) for row in zip(*(map(float, column) for column in columns), strict=True)]
