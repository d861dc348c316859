"""A denoiser that is exactly right: the posterior mean of normal data, as any target."""

import torch
from torch import Tensor

from diffexp.denoiser import Denoiser
from diffexp.schedule import Schedule
from diffexp.targets import Target


class Exact(Denoiser):
    """For x0 ~ N(mean, variance), each broadcast over the images."""

    def __init__(self, schedule: Schedule, target: Target, mean: Tensor | float, variance: Tensor | float) -> None:
        super().__init__(torch.nn.Identity(), schedule, target)
        self.mean, self.variance = mean, variance

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scaled = (x_t - alpha * self.mean) / self.spread(t)
        a, b, _ = self.target.coefficients(self.schedule, t)
        return a * (self.mean + alpha * self.variance * scaled) + b * sigma * scaled

    def spread(self, t: Tensor) -> Tensor:
        """Variance of x_t. The probability flow carries x_t - alpha mean in proportion to its square root."""
        return self.schedule.alpha(t) ** 2 * self.variance + self.schedule.sigma(t) ** 2
