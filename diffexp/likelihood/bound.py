"""The variational bound on -log p(x0), term by term, for a network that predicts any target.

The model walks the grid t_i = i / steps down from x_1 ~ N(0, sigma(1)^2 I) by p(x_s | x_t) = N(mu_hat, s^2 I), where
mu_hat is the mean of q(x_s | x_t, x0) with the predicted x0 in the place of x0. Its bound, per dimension, is

    L_T + sum_{i >= 2} KL(q(x_s | x_t, x0) || p(x_s | x_t)) + L_0,    L_0 = -log p(x0 | x_{t_1}),            (1)
    KL = (alpha_s beta / sigma^2)^2 (x0_hat - x0)^2 / (2 s^2) + (q - 1 - log q) / 2,   q = beta_tilde / s^2  (2)

with beta the variance that q adds from s to t and beta_tilde that of q(x_s | x_t, x0)
(Ho et al. 2020, arXiv:2006.11239, eq. 5-8). The bound depends on the choice of s^2 much more than the model's
likelihood does: compare bounds of one `variance` only.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.io.progress import progress
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Estimate, Target

Variance = Literal["beta", "beta_tilde", "optimal"]
Mmse = Callable[[Tensor], Tensor]
"""From log-SNR (float64, any shape) to E (eps - E[eps | x_t])^2 per dimension, same shape."""

_FAINT = -60.0  # log-SNR


class Bound(NamedTuple):
    """The terms of (1), float64, in nats per dimension: per image, or expected over the data (no batch axis).

    `kl` holds the steps i = 2..steps in its last axis, in increasing time.
    """

    L_T: Tensor
    kl: Tensor
    L_0: Tensor

    @property
    def bits_per_dim(self) -> Tensor:
        """Their sum in bits: per 8-bit value if `discretized`, else of a density on the scale [-1, 1].

        For a density, add log2(127.5) to compare it with the former.
        """
        return (self.L_T + self.kl.sum(-1) + self.L_0) / math.log(2)


@torch.no_grad()
def vlb(
    denoiser: Denoiser,
    x0: Images,
    steps: int,
    variance: Variance,
    discretized: bool = False,
    generator: torch.Generator | None = None,
    mmse: Mmse | None = None,
    t_start: float = 1.0,
) -> Bound:
    """The bound for each image, with one draw of x_t per term: unbiased, `steps` evaluations of the network.

    Args:
        denoiser: Predicts any target.
        x0: Images in [-1, 1].
        steps: Number of steps of the model's chain, at least 2; on a chain schedule at most its T.
        variance: s^2 of each step: beta, beta_tilde (the first step's, which is 0, replaced by the second's), or
            optimal, beta_tilde + (alpha_s beta / sigma^2)^2 mmse_x0 (Bao et al. 2022, arXiv:2201.06503).
        discretized: Take L_0 as the probability of the 8-bit value, the last values' bins reaching to infinity
            (Ho et al. 2020, eq. 13), instead of a density.
        generator: Source of the noise, on x0's device.
        mmse: For variance="optimal".
        t_start: Noise end of the model's chain, 1 on a chain schedule; where nothing of x0 is left at t = 1, some
            targets determine x0 only before it.

    Raises:
        UserError: The grid does not exist or has a time at which the target does not determine x0, optimal lacks its
            `mmse`, or `discretized` images are not 8-bit.
    """
    chain = _Chain(denoiser.schedule, steps, variance, mmse, t_start)
    _require_decodable(denoiser.target, denoiser.schedule, chain.t)
    if discretized:
        _require_8_bit(x0)
    data = x0.double()

    def error(i: int) -> Tensor:
        """x0_hat - x0, float64."""
        estimate, _ = _estimate(denoiser, x0, chain.t[i], generator)
        return estimate.x0.double() - data

    L_0 = chain.L_0(data, error(0), discretized)
    later = progress(range(1, steps), steps - 1, "variational bound")
    errors = torch.stack([_per_dimension(error(i).square()) for i in later], dim=1)
    rate, constant = chain.rate[1:].to(errors.device), chain.constant[1:].to(errors.device)
    return Bound(chain.prior_rate * _per_dimension(data.square()), rate * errors + constant, L_0)


class HeldOutBound:
    """bits/dim of fixed images from two fixed draws of x_t an image, the same for every denoiser.

    Each image estimates one step of the chain besides its L_0. The steps are stratified in log-SNR, over which
    the terms of (1) vary least; each term is divided by its step's share of log-SNR, so the estimate is unbiased.

    Args:
        x0: Images in [-1, 1].
        schedule: Makes x_t; the model's chain has its T steps.
        variance: beta or beta_tilde, as in `vlb`.
        discretized: As in `vlb`.
        draws: Source of the noise: purposes "bound/..." of its step 0.
        t_start: As in `vlb`.

    Raises:
        UserError: As `vlb`.
    """

    def __init__(
        self,
        x0: Images,
        schedule: Schedule,
        variance: Variance,
        discretized: bool,
        draws: Draws,
        t_start: float = 1.0,
    ) -> None:
        if discretized:
            _require_8_bit(x0)
        self.x0, self.schedule, self.discretized, count = x0, schedule, discretized, len(x0)
        self._chain = _Chain(schedule, schedule.steps, variance, None, t_start)
        spans = self._chain.log_snr[:-1] - self._chain.log_snr[1:]
        u = (draws.choose(count, count, 0, "bound/strata") + draws.uniform(count, 0, "bound/times").cpu()) / count
        ends = (spans / spans.sum()).cumsum(0)
        step = torch.searchsorted(ends, u, right=True).clamp(max=len(spans) - 1) + 1
        self._steps = torch.zeros_like(step), step
        self._eps = [draws.normal(x0.shape, 0, f"bound/{name}").to(x0.device) for name in ("first", "rest")]
        self._rate = (self._chain.rate[step] * spans.sum() / spans[step - 1]).to(x0.device)
        self._known = self._chain.constant[1:].sum() + self._chain.prior_rate * x0.double().square().mean().cpu()

    def exists_for(self, target: Target) -> bool:
        """Whether the target determines x0 at every step of the chain."""
        return not _undecodable(target, self.schedule, self._chain.t).numel()

    @torch.no_grad()
    def bits_per_dim(self, denoiser: Denoiser, batch_size: int = 256) -> float:
        """The estimate for one denoiser, its network called with `batch_size` images at a time."""
        data = self.x0.double()
        first, rest = (
            torch.cat(
                [
                    denoiser(self.schedule.noised(t, x0, noise), t).x0.double() - x0.double()
                    for x0, t, noise in zip(
                        *(torch.split(part, batch_size) for part in (self.x0, self._times(step), eps)), strict=True
                    )
                ]
            )
            for step, eps in zip(self._steps, self._eps, strict=True)
        )
        L_0 = self._chain.L_0(data, first, self.discretized).mean()
        nats = self._known + (L_0 + (self._rate * _per_dimension(rest.square())).mean()).cpu()
        return nats.item() / math.log(2)

    def _times(self, step: Tensor) -> PerImage:
        return self._chain.t[step].to(self.x0).reshape(-1, 1, 1, 1)


@torch.no_grad()
def measured_mmse(
    denoiser: Denoiser, x0: Images, steps: int, generator: torch.Generator | None = None, t_start: float = 1.0
) -> Mmse:
    """The eps-error per dimension of a network at each step of the chain, for variance="optimal".

    Measured on training images, the bound on held-out images stays a bound. (Bao et al. 2022 take it from the
    norm of the score instead, which assumes that the network is optimal.)

    Args:
        denoiser: Predicts any target.
        x0: Images in [-1, 1].
        steps: As in `vlb`.
        generator: As in `vlb`.
        t_start: As in `vlb`.
    """
    chain = _Chain(denoiser.schedule, steps, "beta", None, t_start)
    errors: list[float] = []
    for time in progress(chain.t, steps, "eps-error per step"):
        estimate, eps = _estimate(denoiser, x0, time, generator)
        errors.append((estimate.eps - eps).double().square().mean().item())
    known, found = chain.log_snr.clamp(min=_FAINT).flip(0).numpy(), np.array(errors[::-1])

    def mmse(log_snr: Tensor) -> Tensor:
        return torch.as_tensor(np.interp(log_snr.numpy(), known, found))

    return mmse


def expected_vlb(
    schedule: Schedule,
    mmse_eps: Mmse,
    data_second_moment: float | Tensor,
    steps: int,
    variance: Variance,
    t_start: float = 1.0,
) -> Bound:
    """The bound of the optimal denoiser, exact, in expectation over the data.

    Args:
        schedule: Makes x_t.
        mmse_eps: The data's; from a reference in `oracle`, `lambda lam: reference.bayes_eps(lam)[0] / D`.
        data_second_moment: E x0^2, mean over dimensions.
        steps: As in `vlb`.
        variance: As in `vlb`.
        t_start: As in `vlb`.

    Raises:
        UserError: As `vlb`.
    """
    chain = _Chain(schedule, steps, variance, mmse_eps, t_start)
    error = chain.mmse_x0(mmse_eps)
    s2 = chain.s2[0]
    L_0 = (2 * math.pi * s2).log() / 2 + error[0] / (2 * s2)
    L_T = chain.prior_rate * torch.as_tensor(data_second_moment, dtype=torch.float64)
    return Bound(L_T, (chain.rate * error + chain.constant)[1:], L_0)


def log_probability_of_8_bit(x0: Tensor, mean: Tensor, std: float) -> Tensor:
    """log of the mass that N(mean, std^2) has within 1/255 of x0, or beyond it at the ends -1 and 1.

    Exact in either tail, where the difference of two cumulative probabilities would be 0.
    """
    half = 1 / 255
    low = torch.where(x0 < -1 + half, -torch.inf, (x0 - half - mean) / std)
    high = torch.where(x0 > 1 - half, torch.inf, (x0 + half - mean) / std)
    right = low + high > 0
    low, high = torch.where(right, -high, low), torch.where(right, -low, high)  # mirrored into the left tail
    log_cumulative: Callable[[Tensor], Tensor] = cast(Any, torch.special).log_ndtr
    above, below = log_cumulative(high), log_cumulative(low)
    return above + torch.log(-torch.expm1(below - above))


class _Chain:
    """The model's chain: for each step i = 1..steps, the factors of (2).

    Attributes:
        t: Its upper end.
        s2: Model variance.
        rate: Factor on the squared x0-error.
        constant: The rest of the KL; neither is used at i = 1.
        prior_rate: L_T per x0^2.
    """

    def __init__(
        self, schedule: Schedule, steps: int, variance: Variance, mmse: Mmse | None, t_start: float = 1.0
    ) -> None:
        if steps < 2 or (schedule.is_chain and steps > schedule.steps):
            limit = f"at most its T = {schedule.steps}" if schedule.is_chain else "any number"
            raise UserError(f"a bound in {steps} steps on {schedule!r}: take at least 2 and {limit}.")
        if schedule.is_chain and t_start != 1:
            raise UserError(f"a bound from t_start={t_start} on {schedule!r}: a chain's bound starts at t = 1.")
        grid = t_start * torch.linspace(0, 1, steps + 1, dtype=torch.float64).reshape(-1, 1, 1, 1)
        alpha, sigma, log_snr = (f(grid).flatten() for f in (schedule.alpha, schedule.sigma, schedule.log_snr))
        self.t = grid.flatten()[1:]
        self.log_snr = log_snr[1:]
        beta = -sigma[1:].square() * (log_snr[1:] - log_snr[:-1]).expm1()
        beta_tilde = beta * (sigma[:-1] / sigma[1:]).square()
        pull = (alpha[:-1] * beta / sigma[1:].square()).square()  # of x0 on the mean of q(x_s | x_t, x0), squared
        if variance == "beta":
            self.s2 = beta
        elif variance == "beta_tilde":
            self.s2 = torch.cat([beta_tilde[1:2], beta_tilde[1:]])
        elif variance == "optimal":
            if mmse is None:
                raise UserError(
                    "variance=optimal needs mmse, the data's least eps-error per dimension as a function of log-SNR, "
                    "for example from diffexp.oracle; without it take variance=beta."
                )
            self.s2 = beta_tilde + pull * self.mmse_x0(mmse)
        else:
            raise UserError(f"variance={variance}: there are beta, beta_tilde and optimal.")
        ratio = beta_tilde / self.s2
        self.rate = pull / (2 * self.s2)
        self.constant = (ratio - 1 - ratio.log()) / 2
        self.prior_rate = (self.log_snr[-1].exp() / 2).item()

    def L_0(self, data: Tensor, error: Tensor, discretized: bool) -> Tensor:
        """L_0 per image of `data`, from the errors of its predictions at the first step, both float64."""
        s2 = self.s2[0].item()
        if discretized:
            return _per_dimension(-log_probability_of_8_bit(data, data + error, math.sqrt(s2)))
        return math.log(2 * math.pi * s2) / 2 + _per_dimension(error.square()) / (2 * s2)

    def mmse_x0(self, mmse_eps: Mmse) -> Tensor:
        """E (x0 - E[x0 | x_t])^2 per dimension at every t."""
        # Where nothing of x0 is left this is 0 / 0; at log-SNR -60 it is the data's variance in double precision.
        log_snr = self.log_snr.clamp(min=_FAINT)
        return (-log_snr).exp() * mmse_eps(log_snr).double()


def _estimate(
    denoiser: Denoiser, x0: Images, time: Tensor, generator: torch.Generator | None
) -> tuple[Estimate, Images]:
    """The prediction from x_t at one time (a scalar) for all images, and the noise that made x_t."""
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    t = time.to(x0).expand(len(x0), 1, 1, 1)
    return denoiser(denoiser.schedule.noised(t, x0, eps), t), eps


def _per_dimension(square: Tensor) -> Tensor:
    return square.mean((1, 2, 3))


def _undecodable(target: Target, schedule: Schedule, t: Tensor) -> Tensor:
    """The times of t (n,) at which the target does not determine x0."""
    gain = target.gain(schedule, t.reshape(-1, 1, 1, 1)).flatten()
    return t[(gain == 0) | ~gain.isfinite()]


def _require_decodable(target: Target, schedule: Schedule, t: Tensor) -> None:
    singular = _undecodable(target, schedule, t)
    if singular.numel():
        raise UserError(
            f"{target!r} on {schedule!r} does not determine x0 at t = {singular[0].item():g} (its gain is 0 or "
            "infinite there), where the bound needs it. Start the bound at t_start=0.999, or take v or x0."
        )


def _require_8_bit(x0: Images) -> None:
    levels = (x0.double() + 1) * 127.5
    off = (levels - levels.round()).abs()
    if bool((off > 1e-2).any()) or bool((x0.abs() > 1 + 1e-5).any()):
        raise UserError(
            "discretized=True computes the probability of 8-bit values, but these images are not k / 127.5 - 1 with "
            f"k = 0..255 (they run from {x0.min().item():g} to {x0.max().item():g}). Quantise them, or take "
            "discretized=False."
        )
