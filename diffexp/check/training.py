"""What follows for training from the choice of a target, before any training; for data of unit variance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffexp.check.checks import REFERENCES
from diffexp.data.gaussian import SmoothGaussian
from diffexp.denoiser import Denoiser
from diffexp.gradients.statistics import BandGradients, GradientStatistics, gradients_by_band
from diffexp.invertibility import Rounding, rounding, singular, trained_times
from diffexp.objective import EffectiveWeight, Objective, effective_weight, zero_prediction_loss
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Epsilon, Target
from diffexp.times import Times

NOISE_LEVELS = (-40.0, -4.0, 4.0, 40.0)
"""Edges of log-SNR between high, middling and low noise."""


@dataclass(frozen=True)
class FirstGradient:
    """How strongly a fresh network is pulled between two log-SNRs.

    Attributes:
        low: log-SNR from which,
        high: and below which the times lie.
        ratio: Root mean square gradient of the normalised loss of an image, over that of epsilon at the same draws.
    """

    low: float
    high: float
    ratio: float


@dataclass(frozen=True)
class Consequences:
    """What follows for training, for data of unit variance.

    Attributes:
        rounding: What rounding the answer to bfloat16 costs, for the target ("") and for each of `REFERENCES`.
        weight: Of the plain squared error, on the eps-error over log-SNR.
        zero_loss: Expected training loss of always answering zero.
        label_noise: The part of it that c xi makes: no network can lower the loss below it.
        gradients: Of the first training step, at high, middling and low noise.
    """

    rounding: Mapping[str, Rounding]
    weight: EffectiveWeight
    zero_loss: float
    label_noise: float
    gradients: tuple[FirstGradient, ...]


def consequences(target: Target, schedule: Schedule, times: Times) -> Consequences:
    """What follows for training with a target that `examine` found right."""
    t = trained_times(times, schedule)
    t = t[~singular(target, schedule, t)].reshape(-1, 1, 1, 1)
    objective = Objective(target)
    zero, noise = zero_prediction_loss(objective, schedule, times, second_moment=1.0)
    compared = {"": target, **REFERENCES}
    costs = {name: rounding(each, schedule, t, torch.bfloat16) for name, each in compared.items()}
    weight = effective_weight(objective, schedule, times)
    return Consequences(costs, weight, zero, noise, _first_gradients(target, schedule, times))


def _first_gradients(target: Target, schedule: Schedule, times: Times) -> tuple[FirstGradient, ...]:
    ours, theirs = (_gradients(each, schedule, times) for each in (target, Epsilon()))
    return tuple(
        FirstGradient(band.low, band.high, math.sqrt(_mean_square(band) / _mean_square(other)))
        for band, other in zip(ours.bands, theirs.bands, strict=True)
    )


def _mean_square(band: GradientStatistics) -> float:
    return band.norm_squared + band.variance


def _gradients(target: Target, schedule: Schedule, times: Times) -> BandGradients:
    """Of a fresh network on smooth images of unit variance."""
    data = SmoothGaussian(std=1.0).load()
    with cast(Any, torch.random).fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = _Fresh(schedule).float()
    objective, x0 = Objective(target), data.heldout(256)
    zero, _ = zero_prediction_loss(objective, schedule, times, second_moment=1.0)
    return gradients_by_band(
        Denoiser(network, schedule, target), objective, x0, times,
        batches=4, batch_size=64, loss_scale=zero, bands=NOISE_LEVELS,
    )  # fmt: skip


class _Fresh(nn.Module):
    """A few convolutions that see x_t at unit variance and the time, and answer zero at first, as the U-Net does."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        last = nn.Conv2d(8, 1, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.schedule = schedule
        self.layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1),
                                    nn.SiLU(), last)  # fmt: skip

    def forward(self, x_t: Images, t: PerImage) -> Images:
        """Zero, until it has learned."""
        alpha, sigma = self.schedule.amplitudes(t)
        x = x_t / torch.hypot(alpha, sigma).to(x_t.dtype)
        return cast(Tensor, self.layers(torch.cat([x, t.to(x.dtype).expand_as(x)], dim=1)))
