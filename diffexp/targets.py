"""Prediction targets: what the network is trained to output.

Noising mixes a clean image x0 with Gaussian noise eps,

    x_t = alpha x0 + sigma eps.                                             (1)

A target is another mixture of the same two, plus label noise xi, independent of x_t,

    y = a x0 + b eps + c xi.                                                (2)

So a target *is* its three coefficients a(t), b(t), c(t), and all else follows from them.

Conversion. The mean of xi is zero; dropping it leaves two equations in two unknowns:

    x0 = (b x_t - sigma y) / D,    eps = (alpha y - a x_t) / D,    D = alpha b - sigma a.

Error. A network sees x_t, so by (1) its errors in x0 and in eps are one error e:
x0_hat - x0 = -sigma e and eps_hat - eps = alpha e. By (2) its error in y is D e. Squared errors
in two spaces thus differ by the factor (D / D')^2, and by nothing else. The label noise in y
adds c^2 to the training loss, an irreducible floor.

To add a target, write a class like the ones below in any importable module, and name it by `_target_` in
a file conf/target/<name>.yaml on Hydra's search path.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage, require_per_image


class Coefficients(NamedTuple):
    """The a, b, c of y = a x0 + b eps + c xi."""

    a: PerImage
    b: PerImage
    c: PerImage


class Estimate(NamedTuple):
    """A prediction in three spaces, consistent with each other by (1); score = -eps / sigma."""

    x0: Images
    eps: Images
    score: Images


class Target(ABC):
    """A linear target. Subclasses supply coefficients and nothing else."""

    @abstractmethod
    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        """The a, b, c at t, each (batch, 1, 1, 1) in t's dtype."""

    def gain(self, schedule: Schedule, t: PerImage) -> PerImage:
        """D = alpha b - sigma a: the scale of the network's one error e in this space."""
        return self._exact(schedule, t)[2].to(t.dtype)

    def draw(self, schedule: Schedule, t: PerImage, x0: Images, eps: Images, xi: Images) -> Images:
        """Sample y given the x0 and eps that made x_t, and unit label noise xi."""
        require_per_image(t, x0)
        a, b, c = (part.to(x0.dtype) for part in self.coefficients(schedule, t))
        return a * x0 + b * eps + c * xi

    def solve(self, schedule: Schedule, t: PerImage, x_t: Images, y: Images) -> Estimate:
        """Convert a prediction of y to x0, eps and the score, in x_t's dtype."""
        require_per_image(t, x_t)
        a, b, gain = self._exact(schedule, t)
        time = schedule.exact(t)
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        parts = (b / gain, sigma / gain, a / gain, alpha / gain)
        x0_x, x0_y, eps_x, eps_y = (part.to(x_t.dtype) for part in parts)
        eps = eps_y * y - eps_x * x_t
        return Estimate(x0=x0_x * x_t - x0_y * y, eps=eps, score=-eps / sigma.to(x_t.dtype))

    def _exact(self, schedule: Schedule, t: PerImage) -> tuple[PerImage, PerImage, PerImage]:
        """(a, b, D) in float64: D may be a small difference of large numbers."""
        time = schedule.exact(t)
        a, b, _ = self.coefficients(schedule, time)
        return a, b, schedule.alpha(time) * b - schedule.sigma(time) * a


@dataclass(frozen=True)
class Epsilon(Target):
    """The noise at unit variance (Ho et al. 2020, arXiv:2006.11239, eq. 14)."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        require_per_image(t)
        zero = torch.zeros_like(t)
        return Coefficients(zero, zero + 1, zero)


@dataclass(frozen=True)
class ScaledNoise(Target):
    """The noise actually in x_t: sigma eps, of standard deviation below 1 where sigma is."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        zero = torch.zeros_like(t)
        return Coefficients(zero, schedule.sigma(t), zero)


@dataclass(frozen=True)
class UnitStepNoise(Target):
    """The noise z that the last step s -> t added, at unit variance.

    Of z, eps explains the fraction b^2 = 1 - SNR(t) / SNR(s); the rest is irreducible label noise. Before the
    first step there is no noise, so there b = 1 and c = 0.
    Its plain squared error weighs the eps-error like the variational bound, up to a factor 1 - beta.
    """

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        step = schedule.step(t)
        return Coefficients(torch.zeros_like(t), step.beta.sqrt() / schedule.sigma(t), step.kept)


@dataclass(frozen=True)
class StepNoise(Target):
    """The noise sqrt(beta) z that the last step s -> t added: `UnitStepNoise` at its own scale."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        step = schedule.step(t)
        return Coefficients(torch.zeros_like(t), step.beta / schedule.sigma(t), step.beta.sqrt() * step.kept)


@dataclass(frozen=True)
class StepDifference(Target):
    """x_t - x_s, with both images made from the same eps."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        step = schedule.step(t)
        return Coefficients(step.alpha_rise, step.sigma_rise, torch.zeros_like(t))


@dataclass(frozen=True)
class X0(Target):
    """The clean image."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        require_per_image(t)
        zero = torch.zeros_like(t)
        return Coefficients(zero + 1, zero, zero)


@dataclass(frozen=True)
class PosteriorMean(Target):
    """The mean of q(x_s | x_t, x0): the slightly less noisy image, on average (Ho et al. 2020, eq. 7)."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        step = schedule.step(t)
        b = step.ratio * step.sigma_s.square() / schedule.sigma(t)
        return Coefficients(step.alpha_s, b, torch.zeros_like(t))


@dataclass(frozen=True)
class PreviousSample(Target):
    """A draw from q(x_s | x_t, x0): the slightly less noisy image of the chain (Ho et al. 2020, eq. 6-7)."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        step, sigma = schedule.step(t), schedule.sigma(t)
        b = step.ratio * step.sigma_s.square() / sigma
        return Coefficients(step.alpha_s, b, step.beta.sqrt() * step.sigma_s / sigma)


@dataclass(frozen=True)
class Score(Target):
    """The gradient of log p(x_t | x0), which is -eps / sigma (Song et al. 2021, arXiv:2011.13456)."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        zero = torch.zeros_like(t)
        return Coefficients(zero, -1 / schedule.sigma(t), zero)


@dataclass(frozen=True)
class V(Target):
    """The rotated pair alpha eps - sigma x0 (Salimans & Ho 2022, arXiv:2202.00512)."""

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        return Coefficients(-schedule.sigma(t), schedule.alpha(t), torch.zeros_like(t))


@dataclass(frozen=True)
class Flow(Target):
    """The velocity d x_t / dt (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003).

    Raises:
        ValueError: The schedule is a chain, which has no velocity.
    """

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        d_alpha, d_sigma = schedule.rates(t)
        return Coefficients(d_alpha, d_sigma, torch.zeros_like(t))


@dataclass(frozen=True)
class Edm(Target):
    """The preconditioned residual F, with x0 = c_skip x_t / alpha + c_out F (Karras et al. 2022, eq. 7).

    arXiv:2206.00364. On any schedule x_t / alpha = x0 + (sigma / alpha) eps is the paper's noised image, and
    sigma / alpha its noise level.

    Attributes:
        sigma_data: Standard deviation of the data, per pixel.
    """

    sigma_data: float = 0.5

    def coefficients(self, schedule: Schedule, t: PerImage) -> Coefficients:
        alpha, sigma, sd = schedule.alpha(t), schedule.sigma(t), self.sigma_data
        norm = (alpha.square() * sd**2 + sigma.square()).rsqrt()
        return Coefficients(sigma / sd * norm, -alpha * sd * norm, torch.zeros_like(t))
