"""Loss weights: how much each noise level matters.

A weighting multiplies the squared error in the space in which the loss is computed (`objective.space`). S is the
signal-to-noise ratio alpha^2 / sigma^2. Each was published for one space (`space`); in another space it is
allowed and means something else: the effective weight on the eps-error that a run records shows what.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from diffexp.schedule import Schedule
from diffexp.shapes import PerImage


class Weighting(ABC):
    """A positive number per noise level."""

    space: ClassVar[str | None] = None
    """Conf name of the space in which the paper weighs the squared error; None: any."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage: ...


@dataclass(frozen=True)
class Uniform(Weighting):
    """Every time weighted equally: the plain mean squared error of the loss space."""

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return torch.ones_like(t)


@dataclass(frozen=True)
class Snr(Weighting):
    """S: in x0 space, the plain eps loss (Salimans & Ho 2022, arXiv:2202.00512, sec. 4)."""

    space = "x0"

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return schedule.log_snr(t).exp()


@dataclass(frozen=True)
class TruncatedSnr(Weighting):
    """max(S, 1) (Salimans & Ho 2022, sec. 4)."""

    space = "x0"

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return schedule.log_snr(t).exp().clamp(min=1)


@dataclass(frozen=True)
class SnrPlusOne(Weighting):
    """S + 1: in x0 space, the plain v loss of a variance-preserving schedule (Salimans & Ho 2022, sec. 4)."""

    space = "x0"

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return schedule.log_snr(t).exp() + 1


@dataclass(frozen=True)
class MinSnr(Weighting):
    """min(S, gamma) (Hang et al. 2023, arXiv:2303.09556, eq. 8).

    Attributes:
        gamma: Signal-to-noise ratio from which the weight no longer grows.
    """

    space = "x0"
    gamma: float = 5.0

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return schedule.log_snr(t).exp().clamp(max=self.gamma)


@dataclass(frozen=True)
class P2(Weighting):
    """(k + S)^-gamma (Choi et al. 2022, arXiv:2204.00227, eq. 8).

    Attributes:
        k: Keeps the weight finite as the signal vanishes.
        gamma: How strongly low noise is down-weighted.
    """

    space = "epsilon"
    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return (self.k + schedule.log_snr(t).exp()).pow(-self.gamma)


@dataclass(frozen=True)
class Sigmoid(Weighting):
    """sigmoid(bias - log S) (Kingma & Gao 2023, arXiv:2303.00848; Hoogeboom et al. 2024, arXiv:2410.19324).

    Attributes:
        bias: log-SNR at which the weight is one half.
    """

    space = "epsilon"
    bias: float = 2.0

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return torch.sigmoid(self.bias - schedule.log_snr(t))


@dataclass(frozen=True)
class Edm(Weighting):
    """S + 1 / sigma_data^2: in x0 space, the plain loss of EDM's F (Karras et al. 2022, eq. 8).

    arXiv:2206.00364.

    Attributes:
        sigma_data: Standard deviation of the data, per pixel.
    """

    space = "x0"
    sigma_data: float = 0.5

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        return schedule.log_snr(t).exp() + self.sigma_data**-2


@dataclass(frozen=True)
class Vlb(Weighting):
    """k_t = beta / (2 ratio^2 sigma^2), the variational bound's weight on the squared eps-error of step t.

    For model variance beta, in nats (Ho et al. 2020, arXiv:2006.11239, eq. 12); on a continuous schedule the
    step is 1/T long.
    """

    space = "epsilon"

    def __call__(self, schedule: Schedule, t: PerImage) -> PerImage:
        step = schedule.step(t)
        return step.beta / (2 * step.ratio.square() * schedule.sigma(t).square())


def published_elsewhere(weighting: Weighting, space: str) -> str | None:
    """One line of warning when `weighting` is used in a `space` (conf name) it was not published for."""
    if weighting.space in (None, space):
        return None
    return (
        f"weighting {type(weighting).__name__} was published for the squared error in {weighting.space} and "
        f"is used on the one in {space}: the recorded effective weight on the eps-error shows what it does."
    )
