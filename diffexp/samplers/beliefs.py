"""What a sampler asks of a denoiser, counted and, on request, clipped."""

from typing import Protocol, runtime_checkable

import torch

from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Estimate


@runtime_checkable
class Believes(Protocol):
    """All that a sampler asks of a denoiser."""

    schedule: Schedule

    def __call__(self, x_t: Images, t: PerImage) -> Estimate: ...


class Beliefs:
    """A denoiser that is asked about all images at one time.

    Args:
        denoiser: Whom to ask.
        clip: Clamp each belief about x0 to [-1, 1], and recompute eps and the score from it.

    Attributes:
        asked: How often, so far.
    """

    def __init__(self, denoiser: Believes, clip: bool) -> None:
        self.schedule, self.asked = denoiser.schedule, 0
        self._denoiser, self._clip = denoiser, clip

    def __call__(self, x_t: Images, t: float) -> Estimate:
        self.asked += 1
        belief = self._denoiser(x_t, torch.full((len(x_t), 1, 1, 1), t, dtype=x_t.dtype, device=x_t.device))
        if not self._clip:
            return belief
        time = torch.full((1, 1, 1, 1), t, dtype=torch.float64)
        alpha, sigma = self.schedule.alpha(time).item(), self.schedule.sigma(time).item()
        x0 = belief.x0.clamp(-1, 1)
        eps = (x_t - alpha * x0) / sigma
        return Estimate(x0, eps, -eps / sigma)
