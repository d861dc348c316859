"""The variational bound on -log p(x0), term by term, for a network that predicts any target.

The model walks the grid t_i = i / steps down from x_1 ~ N(0, sigma(1)^2 I) by p(x_s | x_t) = N(mu_hat, s^2 I), where
mu_hat is the mean of q(x_s | x_t, x0) with the belief about x0 in the place of x0. Its bound, per dimension, is

    L_T + sum_{i >= 2} KL(q(x_s | x_t, x0) || p(x_s | x_t)) + L_0,    L_0 = -log p(x0 | x_{t_1}),            (1)
    KL = (alpha_s beta / sigma^2)^2 (x0_hat - x0)^2 / (2 s^2) + (q - 1 - log q) / 2,   q = beta_tilde / s^2  (2)

with beta the variance that q adds from s to t and beta_tilde that of q(x_s | x_t, x0)
(Ho et al. 2020, arXiv:2006.11239, eq. 5-8). The bound depends on the choice of s^2 much more than the model's
likelihood does: compare bounds of one `variance` only.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from diffexp.denoiser import Denoiser
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage

Variance = Literal["beta", "beta_tilde", "optimal"]
Mmse = Callable[[Tensor], Tensor]
"""From log-SNR (float64, any shape) to E (eps - E[eps | x_t])^2 per dimension, same shape."""


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
) -> Bound:
    """The bound for each image, with one draw of x_t per term: unbiased, `steps` evaluations of the network.

    Args:
        denoiser: Answers in any target's space.
        x0: Images in [-1, 1].
        steps: Number of steps of the model's chain, at least 2; on a chain schedule at most its T.
        variance: s^2 of each step: beta, beta_tilde (the first step's, which is 0, replaced by the second's), or
            optimal, beta_tilde + (alpha_s beta / sigma^2)^2 mmse_x0 (Bao et al. 2022, arXiv:2201.06503).
        discretized: Take L_0 as the probability of the 8-bit value, the last values' bins reaching to infinity
            (Ho et al. 2020, eq. 13), instead of a density.
        generator: Source of the noise, on x0's device.
        mmse: For variance="optimal".

    Raises:
        ValueError: The grid does not exist or holds a time at which the target says nothing, optimal lacks its
            `mmse`, or `discretized` images are not 8-bit.
    """
    chain = _Chain(denoiser.schedule, steps, variance, mmse)
    _require_decodable(denoiser, chain.t.reshape(-1, 1, 1, 1))
    if discretized:
        _require_8_bit(x0)
    data = x0.double()

    def error(i: int) -> Tensor:
        """x0_hat - x0, float64."""
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        t = chain.t[i].to(x0).expand(len(x0), 1, 1, 1)
        return denoiser(denoiser.schedule.noised(t, x0, eps), t).x0.double() - data

    def per_dimension(square: Tensor) -> Tensor:
        return square.mean((1, 2, 3))

    first = error(0)
    s2 = chain.s2[0].item()
    if discretized:
        last = per_dimension(-log_probability_of_8_bit(data, data + first, math.sqrt(s2)))
    else:
        last = math.log(2 * math.pi * s2) / 2 + per_dimension(first.square()) / (2 * s2)
    errors = torch.stack([per_dimension(error(i).square()) for i in range(1, steps)], dim=1)
    rate, constant = chain.rate[1:].to(errors.device), chain.constant[1:].to(errors.device)
    return Bound(chain.prior_rate * per_dimension(data.square()), rate * errors + constant, last)


def expected_vlb(
    schedule: Schedule, mmse_eps: Mmse, data_second_moment: float | Tensor, steps: int, variance: Variance
) -> Bound:
    """The same bound of the best possible denoiser, exact, in expectation over the data.

    Args:
        schedule: Makes x_t.
        mmse_eps: The data's; from a reference in `oracle`, `lambda lam: reference.bayes_eps(lam)[0] / D`.
        data_second_moment: E x0^2, mean over dimensions.
        steps: As in `vlb`.
        variance: As in `vlb`.

    Raises:
        ValueError: As `vlb`.
    """
    chain = _Chain(schedule, steps, variance, mmse_eps)
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
        rate: What the squared x0-error is multiplied by.
        constant: The rest of the KL; neither means anything at i = 1.
        prior_rate: L_T per x0^2.
    """

    def __init__(self, schedule: Schedule, steps: int, variance: Variance, mmse: Mmse | None) -> None:
        if steps < 2 or (schedule.is_chain and steps > schedule.steps):
            limit = f"at most its T = {schedule.steps}" if schedule.is_chain else "any number"
            raise ValueError(f"a bound in {steps} steps on {schedule!r}: take at least 2 and {limit}.")
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64).reshape(-1, 1, 1, 1)
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
                raise ValueError(
                    "variance=optimal needs mmse, the data's least eps-error per dimension as a function of log-SNR, "
                    "for example from diffexp.oracle; without it take variance=beta."
                )
            self.s2 = beta_tilde + pull * self.mmse_x0(mmse)
        else:
            raise ValueError(f"variance={variance}: there are beta, beta_tilde and optimal.")
        ratio = beta_tilde / self.s2
        self.rate = pull / (2 * self.s2)
        self.constant = (ratio - 1 - ratio.log()) / 2
        self.prior_rate = (self.log_snr[-1].exp() / 2).item()

    def mmse_x0(self, mmse_eps: Mmse) -> Tensor:
        """E (x0 - E[x0 | x_t])^2 per dimension at every t."""
        # Where nothing is left of x0 it is 0 / 0; from exp(-60) on it is the data's variance to double precision.
        log_snr = self.log_snr.clamp(min=-60)
        return (-log_snr).exp() * mmse_eps(log_snr).double()


def _require_decodable(denoiser: Denoiser, t: PerImage) -> None:
    gain = denoiser.target.gain(denoiser.schedule, t)
    singular = t[(gain == 0) | ~gain.isfinite()]
    if singular.numel():
        raise ValueError(
            f"{denoiser.target!r} on {denoiser.schedule!r} says nothing of x0 at t = {singular[0].item():g} (its gain "
            "is 0 or infinite there), where the bound needs it: there is no bound for this pair. Take v or x0."
        )


def _require_8_bit(x0: Images) -> None:
    levels = (x0.double() + 1) * 127.5
    off = (levels - levels.round()).abs()
    if bool((off > 1e-2).any()) or bool((x0.abs() > 1 + 1e-5).any()):
        raise ValueError(
            "discretized=True asks for the probability of 8-bit values, and these images are not k / 127.5 - 1 with "
            f"k = 0..255 (they run from {x0.min().item():g} to {x0.max().item():g}). Quantise them, or take "
            "discretized=False."
        )
