"""Noise schedules: how much signal and how much noise there is at time t.

    x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I),    t in [0, 1], 0 = clean

`alpha` and `sigma` are amplitudes; DDPM's alpha_bar is alpha^2. Everything is computed in float64 from quantities
that do not cancel, and returned in the dtype of t. The textbook values hold on all of [0, 1], so that log-SNR may be
infinite at an end; `times` decides which times are *used*.

A chain is a schedule that exists at t = k / T alone, k = 0..T. On any schedule `step` gives the last of T steps
before t, which the step targets and the variational bound are made of.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffexp.errors import UserError
from diffexp.shapes import Images, PerImage, require_per_image


class Step(NamedTuple):
    """The Markov step x_t = ratio x_s + sqrt(beta) z from s = max(t - 1/T, 0) to t.

    `alpha_rise` and `sigma_rise` are alpha(t) - alpha(s) and sigma(t) - sigma(s). `kept` is sqrt(SNR(t) / SNR(s)): the
    share of x_t's noise amplitude that was there at s. At the first step nothing was, so kept = 0, beta = sigma(t)^2.
    """

    alpha_s: PerImage
    sigma_s: PerImage
    alpha_rise: PerImage
    sigma_rise: PerImage
    ratio: PerImage
    beta: PerImage
    kept: PerImage


class Schedule(ABC):
    """Signal alpha and noise sigma over time, with alpha / sigma strictly decreasing.

    Attributes:
        steps: T, the number of steps of the chain; on a continuous schedule the number that step targets
            and the variational bound cut [0, 1] into.
        is_chain: Whether only the times k / T exist.
    """

    steps: int
    is_chain: ClassVar[bool]

    @property
    @abstractmethod
    def time_range(self) -> tuple[float, float]:
        """The default (t_min, t_max) of training: clear of singular ends."""

    @abstractmethod
    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(log alpha, log sigma) at t of any shape, float64 in and out."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which log-SNR has this value, any shape, float64; the nearer end where none has."""

    @abstractmethod
    def rates(self, t: PerImage) -> tuple[PerImage, PerImage]:
        """(d alpha / dt, d sigma / dt).

        Raises:
            UserError: The schedule is a chain, which has no derivative.
        """

    def alpha(self, t: PerImage) -> PerImage:
        """Signal amplitude."""
        return self._checked_logs(t)[0].exp().to(t.dtype)

    def sigma(self, t: PerImage) -> PerImage:
        """Noise amplitude."""
        return self._checked_logs(t)[1].exp().to(t.dtype)

    def amplitudes(self, t: PerImage) -> tuple[PerImage, PerImage]:
        """(alpha, sigma), at the cost of one of them."""
        log_alpha, log_sigma = self._checked_logs(t)
        return log_alpha.exp().to(t.dtype), log_sigma.exp().to(t.dtype)

    def log_snr(self, t: PerImage) -> PerImage:
        """log(alpha^2 / sigma^2) in nats."""
        log_alpha, log_sigma = self._checked_logs(t)
        return (2 * (log_alpha - log_sigma)).to(t.dtype)

    def noised(self, t: PerImage, x0: Images, eps: Images) -> Images:
        """x_t = alpha x0 + sigma eps, in x0's dtype."""
        require_per_image(t, x0)
        alpha, sigma = self.amplitudes(t)
        return alpha.to(x0.dtype) * x0 + sigma.to(x0.dtype) * eps

    def step(self, t: PerImage) -> Step:
        """The last of T steps before t."""
        log_alpha, log_sigma = self._checked_logs(t)
        log_alpha_s, log_sigma_s = self.logs((self.exact(t) - 1 / self.steps).clamp(min=0))
        alpha_drop, sigma_rise = log_alpha - log_alpha_s, log_sigma - log_sigma_s
        alpha_s, sigma_s, sigma = log_alpha_s.exp(), log_sigma_s.exp(), log_sigma.exp()
        step = Step(
            alpha_s=alpha_s,
            sigma_s=sigma_s,
            alpha_rise=alpha_s * alpha_drop.expm1(),
            sigma_rise=-sigma * (-sigma_rise).expm1(),
            ratio=alpha_drop.exp(),
            beta=-sigma.square() * (2 * (alpha_drop - sigma_rise)).expm1(),
            kept=(alpha_drop - sigma_rise).exp(),
        )
        return Step(*(part.to(t.dtype) for part in step))

    def _checked_logs(self, t: PerImage) -> tuple[PerImage, PerImage]:
        require_per_image(t)
        if t.device.type == "cpu" and ((t < 0) | (t > 1)).any():  # reading a value on a GPU would synchronise
            raise UserError(
                f"times from {t.min().item():g} to {t.max().item():g}: a schedule lives on [0, 1], 0 = clean."
            )
        return self.logs(self.exact(t))

    def exact(self, t: Tensor) -> Tensor:
        """t in float64, snapped to k / T where it equals some k / T up to the rounding of its dtype.

        (So that the step before t = 1 / T begins at 0 and not a rounding error later.)
        """
        time = t.double()
        off = (time * self.steps).round() / self.steps - time
        return time + off.where(off.abs() <= torch.finfo(t.dtype).eps * time, 0).detach()


@dataclass(frozen=True)
class Chain(Schedule):
    """A schedule given by the variances of T steps (Ho et al. 2020, arXiv:2006.11239, eq. 2-4).

    Between grid points log-SNR is interpolated linearly. Before the first step it would be infinite: times
    in (0, 1/T) are a ValueError on the CPU and NaN elsewhere.
    """

    steps: int = 1000
    is_chain = True

    @abstractmethod
    def betas(self) -> Tensor:
        """Variance that step k adds, k = 1..T, float64 (T,)."""

    @property
    def time_range(self) -> tuple[float, float]:
        return 1 / self.steps, 1.0

    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        table = _chain_log_snr(self, t.device)
        position = self._snap(t, torch.float64) * self.steps
        below = position.floor().long().clamp(0, self.steps)
        above = (below + 1).clamp(max=self.steps)
        fraction = position - below
        between = table[below] + fraction * (table[above] - table[below])
        log_snr = torch.where(fraction == 0, table[below], between)
        early = (position > 0) & (position < 1)
        if t.device.type == "cpu" and early.any():
            raise UserError(
                f"t = {t[early].min().item():g} lies before the chain's first step: {self!r} exists at 0 "
                f"and on [{1 / self.steps:g}, 1]. Use t >= 1/T, or a continuous schedule: linear_beta_cont."
            )
        log_snr = torch.where(early, torch.nan, log_snr)
        return logsigmoid(log_snr) / 2, logsigmoid(-log_snr) / 2

    def time(self, log_snr: Tensor) -> Tensor:
        table = _chain_log_snr(self, log_snr.device)[1:]
        wanted = log_snr.double().clamp(table[-1], table[0])
        above = torch.searchsorted(-table, -wanted).clamp(1, self.steps - 1)
        fraction = (table[above - 1] - wanted) / (table[above - 1] - table[above])
        return (above + fraction) / self.steps  # table[k - 1] belongs to step k

    def exact(self, t: Tensor) -> Tensor:
        return self._snap(t.double(), t.dtype)

    def _snap(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """t, snapped to k / T where they differ by rounding to `dtype` or by accumulated float64 error."""
        nearest = (t * self.steps).round() / self.steps
        return torch.where((t - nearest).abs() < max(4 * torch.finfo(dtype).eps, 1e-12), nearest, t)

    def rates(self, t: PerImage) -> tuple[PerImage, PerImage]:
        raise UserError(
            f"{self!r} is a chain of steps and has no d alpha / dt, so target=flow is undefined on it. "
            "Take target=v, or a continuous schedule: rectified, cosine_cont, linear_beta_cont."
        )


@lru_cache(maxsize=64)
def _chain_log_snr(chain: Chain, device: torch.device) -> Tensor:
    """log-SNR at step 0..T, float64 (T + 1,): infinite, then log(abar / (1 - abar)) without cancellation."""
    log_abar = torch.log1p(-chain.betas()).cumsum(0)
    log_noise = _log_one_minus_exp(log_abar)
    return torch.cat([torch.full((1,), torch.inf, dtype=torch.float64), log_abar - log_noise]).to(device)


def _log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, accurate at both ends."""
    return torch.where(x > -math.log(2), (-x.expm1()).log(), torch.log1p(-x.exp()))


@dataclass(frozen=True)
class LinearBeta(Chain):
    """DDPM's chain: betas equally spaced (Ho et al. 2020, sec. 4).

    Attributes:
        beta_min: Variance of the first step.
        beta_max: Variance of the last step.
    """

    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max < 1 and self.steps >= 2):
            raise UserError(f"{self!r}: needs 0 < beta_min <= beta_max < 1 and steps >= 2, for example the defaults.")

    def betas(self) -> Tensor:
        return torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class Cosine(Chain):
    """The cosine chain (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17).

    Attributes:
        offset: The paper's s, which keeps the first steps from being too small.
        beta_clip: Largest variance of one step.
    """

    offset: float = 0.008
    beta_clip: float = 0.999

    def __post_init__(self) -> None:
        if not (self.offset > 0 and 0 < self.beta_clip < 1 and self.steps >= 2):
            raise UserError(f"{self!r}: needs offset > 0, 0 < beta_clip < 1 and steps >= 2, for example the defaults.")

    def betas(self) -> Tensor:
        grid = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        angle = (grid + self.offset) / (1 + self.offset) * math.pi / 2
        # 1 - cos^2(u') / cos^2(u), as a product so that nothing cancels.
        beta = (angle[1:] - angle[:-1]).sin() * (angle[1:] + angle[:-1]).sin() / angle[:-1].cos().square()
        return beta.clamp(max=self.beta_clip)


@dataclass(frozen=True)
class Path(Schedule):
    """A schedule that is differentiable on all of (0, 1)."""

    steps: int = 1000
    is_chain = False

    @property
    def time_range(self) -> tuple[float, float]:
        return 1e-3, 1 - 1e-3

    @abstractmethod
    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(d alpha / dt, d sigma / dt), float64 in and out."""

    def rates(self, t: PerImage) -> tuple[PerImage, PerImage]:
        require_per_image(t)
        d_alpha, d_sigma = self.derivatives(t.double())
        return d_alpha.to(t.dtype), d_sigma.to(t.dtype)


@dataclass(frozen=True)
class LinearBetaCont(Path):
    """The variance-preserving SDE with beta(t) = beta_0 + (beta_1 - beta_0) t (Song et al. 2021).

    arXiv:2011.13456, eq. 32.

    Attributes:
        beta_0: Noise rate at t = 0.
        beta_1: Noise rate at t = 1.
    """

    beta_0: float = 0.1
    beta_1: float = 20.0

    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_abar = -(self.beta_0 * t + (self.beta_1 - self.beta_0) * t.square() / 2)
        return log_abar / 2, _log_one_minus_exp(log_abar) / 2

    def time(self, log_snr: Tensor) -> Tensor:
        whole = (self.beta_0 + self.beta_1) / 2
        area = (-logsigmoid(log_snr.double())).clamp(max=whole)  # -log alpha^2, the integral of beta(t)
        slope = self.beta_1 - self.beta_0
        return (2 * area / (self.beta_0 + (self.beta_0**2 + 2 * slope * area).sqrt())).clamp(max=1)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = (log.exp() for log in self.logs(t))
        half = (self.beta_0 + (self.beta_1 - self.beta_0) * t) / 2
        return -half * alpha, half * alpha.square() / sigma


@dataclass(frozen=True)
class CosineCont(Path):
    """A quarter turn at constant speed: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""

    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        quarter = math.pi / 2
        return (quarter * (1 - t)).sin().log(), (quarter * t).sin().log()  # sin 0 is exactly 0, cos pi/2 is not

    def time(self, log_snr: Tensor) -> Tensor:
        return 2 / math.pi * (-log_snr.double() / 2).exp().atan()

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = (log.exp() for log in self.logs(t))
        return -math.pi / 2 * sigma, math.pi / 2 * alpha


@dataclass(frozen=True)
class Rectified(Path):
    """The straight line alpha = 1 - t, sigma = t (Liu et al. 2023, arXiv:2209.03003)."""

    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log1p(-t), t.log()

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.double() / 2)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class Edm(Path):
    """Noise added to an image that keeps its scale: alpha = 1, sigma = sigma_max t (Karras et al. 2022).

    arXiv:2206.00364, table 1. The paper's noise grid belongs to the sampler, its noise density to `times`.

    Attributes:
        sigma_max: Noise level at t = 1.
    """

    sigma_max: float = 80.0

    def logs(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), (self.sigma_max * t).log()

    def time(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr.double() / 2).exp() / self.sigma_max).clamp(max=1)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)
