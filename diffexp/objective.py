"""The loss: squared error in one space, whatever the network predicts."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch

from diffexp.denoiser import Denoiser
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.times import Uniform as UniformTimes
from diffexp.weighting import Uniform, Weighting


@dataclass(frozen=True)
class Objective:
    """Weighted squared error of a network that predicts `target`, computed in `space`.

        loss = w(t) (D_space / D_target)^2 mean (y_hat - y)^2

    The factor between the two spaces is exact, gradients included: the loss is the squared error of the prediction
    converted to `space`.

    Attributes:
        target: What the network predicts.
        space: The space in which the loss is computed; None: the target's own ("native").
        weighting: Multiplies the squared error in that space.
    """

    target: Target
    space: Target | None = None
    weighting: Weighting = field(default_factory=Uniform)

    def scale(self, schedule: Schedule, t: PerImage) -> PerImage:
        """Factor on the squared error of the network's output, float64."""
        t = schedule.exact(t)
        weight = self.weighting(schedule, t)
        if self.space is None or self.space == self.target:
            return weight
        return weight * (self.space.gain(schedule, t) / self.target.gain(schedule, t)).square()

    def eps_weight(self, schedule: Schedule, t: PerImage) -> PerImage:
        """Factor on the squared error of the implied eps, float64."""
        t = schedule.exact(t)
        gain = self.target.gain(schedule, t) / schedule.alpha(t)
        return self.scale(schedule, t) * gain.square()

    def __call__(self, denoiser: Denoiser, x0: Images, t: PerImage, eps: Images, xi: Images) -> PerImage:
        """Loss per image, mean over its pixels, float32 or better."""
        schedule = denoiser.schedule
        prediction = denoiser.predict(schedule.noised(t, x0, eps), t)
        return self.of_prediction(prediction, schedule, x0, t, eps, xi)

    def of_prediction(
        self, prediction: Images, schedule: Schedule, x0: Images, t: PerImage, eps: Images, xi: Images
    ) -> PerImage:
        """Loss per image of a `prediction` in target space."""
        error = prediction - self.target.draw(schedule, t, x0, eps, xi)
        error = error.to(torch.promote_types(error.dtype, torch.float32))
        return self.scale(schedule, t).to(error.dtype) * error.square().mean((1, 2, 3), keepdim=True)


def zero_prediction_loss(
    objective: Objective, schedule: Schedule, times: Times, second_moment: float
) -> tuple[float, float]:
    """The expected training loss of the zero-prediction baseline, and the part of it that is label noise xi.

    Args:
        objective: The loss.
        schedule: Makes x_t.
        times: How training times are drawn.
        second_moment: Mean square of a pixel of the data.
    """
    t = times(schedule, (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    a, b, c = objective.target.coefficients(schedule, t)
    scale = objective.scale(schedule, t)
    noise = scale * c.square()
    return (scale * (a.square() * second_moment + b.square()) + noise).mean().item(), noise.mean().item()


@dataclass(frozen=True)
class EffectiveWeight:
    """Weight that a run puts on the squared eps-error per log-SNR, compared with uniform t.

    Attributes:
        log_snr: Centres of the bins, increasing.
        weight: The run's expected weight on errors there, times included, over `times`; mean 1 over uniform t.
        times: Share of uniform t that falls there.
    """

    log_snr: list[float]
    weight: list[float]
    times: list[float]

    def shares(self, low: float, high: float) -> tuple[float, float]:
        """The shares of the total weight and of uniform t with log-SNR in [low, high)."""
        bins = zip(self.log_snr, self.weight, self.times, strict=True)
        inside = [(weight * times, times) for at, weight, times in bins if low <= at < high]
        return sum((weight for weight, _ in inside), 0.0), sum((times for _, times in inside), 0.0)


def effective_weight(objective: Objective, schedule: Schedule, times: Times, width: float = 0.5) -> EffectiveWeight:
    """The effective weight in bins of log-SNR of this `width`; the density of training times is included."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = times(schedule, u)
    even = UniformTimes(times.t_min, times.t_max)(schedule, u)
    edges = torch.arange(-40, 40 + width, width, dtype=torch.float64)

    def share(t: PerImage, weight: torch.Tensor) -> torch.Tensor:
        counts, _ = torch.histogram(schedule.log_snr(t).flatten(), edges, weight=weight.flatten())
        return counts / counts.sum()

    reference = share(even, torch.ones_like(even))
    weighted = share(drawn, objective.eps_weight(schedule, drawn))
    used = reference > 0
    columns = (edges[:-1] + width / 2)[used], weighted[used] / reference[used], reference[used]
    return EffectiveWeight(*(cast(Any, column).tolist() for column in columns))
