"""What a target means for training, before any training: loss floor, implied weight, first gradient, rounding."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffexp.check.checks import REFERENCES
from diffexp.data.gaussian import SmoothGaussian
from diffexp.denoiser import Denoiser
from diffexp.gradients.statistics import gradients_by_band
from diffexp.invertibility import Rounding, rounding, singular, trained_times
from diffexp.objective import EffectiveWeight, Objective, effective_weight, zero_prediction_loss
from diffexp.runs.metric_keys import NOISE_REGIONS
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Epsilon, Target
from diffexp.times import Times

_EDGES = (-40.0, *NOISE_REGIONS["middle"], 40.0)
"""log-SNR between the noise regions, from high noise to low."""


@dataclass(frozen=True)
class TrainingReport:
    """What follows for training, for data of unit variance.

    Attributes:
        rounding: The cost of rounding a prediction to bfloat16, for the target ("") and for each of `REFERENCES`.
        weight: Of the plain squared error, on the eps-error over log-SNR.
        zero_loss: Expected training loss of the zero-prediction baseline.
        label_noise: The part of it that c xi makes: the loss cannot fall below it.
        gradients: For each noise region that training uses, the root mean square gradient of an untrained network over
            that for epsilon at the same draws; of the normalised loss of one image.
    """

    rounding: Mapping[str, Rounding]
    weight: EffectiveWeight
    zero_loss: float
    label_noise: float
    gradients: Mapping[str, float]


def training_report(target: Target, schedule: Schedule, times: Times) -> TrainingReport:
    """What follows for training with a target that passes `check_target`."""
    t = trained_times(times, schedule)
    t = t[~singular(target, schedule, t)].reshape(-1, 1, 1, 1)
    objective = Objective(target)
    zero, noise = zero_prediction_loss(objective, schedule, times, second_moment=1.0)
    compared = {"": target, **REFERENCES}
    costs = {name: rounding(each, schedule, t, torch.bfloat16) for name, each in compared.items()}
    weight = effective_weight(objective, schedule, times)
    ours, theirs = (_mean_square_gradients(each, schedule, times) for each in (target, Epsilon()))
    ratios = {region: math.sqrt(square / theirs[region]) for region, square in ours.items()}
    return TrainingReport(costs, weight, zero, noise, ratios)


def _mean_square_gradients(target: Target, schedule: Schedule, times: Times) -> dict[str, float]:
    """By noise region, of an untrained network on smooth images of unit variance."""
    data = SmoothGaussian(std=1.0).load()
    with cast(Any, torch.random).fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = _SmallNetwork(schedule).float()
    objective, x0 = Objective(target), data.heldout(256)
    zero, _ = zero_prediction_loss(objective, schedule, times, second_moment=1.0)
    found = gradients_by_band(
        Denoiser(network, schedule, target), objective, x0, times,
        batches=4, batch_size=64, loss_scale=zero, bands=_EDGES,
    )  # fmt: skip
    regions = dict(zip(_EDGES, NOISE_REGIONS, strict=False))
    return {regions[band.low]: band.norm_squared + band.variance for band in found.bands}


class _SmallNetwork(nn.Module):
    """A few convolutions over x_t at unit variance and the time, with a last layer of zeros, as in the U-Net."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        last = nn.Conv2d(8, 1, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.schedule = schedule
        self.layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1),
                                    nn.SiLU(), last)  # fmt: skip

    def forward(self, x_t: Images, t: PerImage) -> Images:
        """Zero, before training."""
        alpha, sigma = self.schedule.amplitudes(t)
        x = x_t / torch.hypot(alpha, sigma).to(x_t.dtype)
        return cast(Tensor, self.layers(torch.cat([x, t.to(x.dtype).expand_as(x)], dim=1)))
