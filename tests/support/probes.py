"""What samplers are tested with: denoisers whose predictions are known, and probes of an affine sampler's law."""

import functools
from typing import Any

import torch
from catalogue import per_image, reference
from torch import Tensor

from diffexp.samplers import Ancestral, Ddim, DpmSolverPP2M, Heun, ProbabilityFlow, ReverseSde, Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Estimate

LAWS = reference("samplers")
MEANS, VARIANCES = (per_image([law[k] for law in LAWS["data"]]).reshape(1, -1, 1, 1) for k in ("mean", "variance"))


def sampler_of(case: dict[str, Any]) -> Sampler:
    """The sampler of a case in tests/reference/samplers.json."""
    steps, knob, rest = case["steps"], case["knob"], {"grid": case["grid"], "t_end": case["t_end"]}
    match case["sampler"]:
        case "ddim":
            return Ddim(steps, float(knob), **rest)
        case "ancestral":
            return Ancestral(steps, knob, **rest)
        case "heun":
            return Heun(steps, **rest)
        case "dpmpp_2m":
            return DpmSolverPP2M(steps, **rest)
        case "reverse_sde":
            return ReverseSde(steps, **rest)
        case _:
            return ProbabilityFlow(steps, knob, **rest)


@functools.cache
def levels(schedule: Schedule, t: float) -> tuple[float, float]:
    """(alpha, sigma) at t."""
    time = per_image([t])
    return schedule.alpha(time).item(), schedule.sigma(time).item()


class Posterior:
    """The exact prediction for normal data, without a Target: by default each kind in LAWS, a channel."""

    def __init__(self, schedule: Schedule, mean: Tensor = MEANS, variance: Tensor = VARIANCES) -> None:
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        alpha, sigma = levels(self.schedule, t[0].item())
        scaled = (x_t - alpha * self.mean) / (alpha**2 * self.variance + sigma**2)
        return Estimate(self.mean + alpha * self.variance * scaled, sigma * scaled, -scaled)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability flow carries x: in proportion to the spread of x_t."""
        (alpha, sigma), (below, final) = levels(self.schedule, start), levels(self.schedule, end)
        spread = (below**2 * self.variance + final**2) / (alpha**2 * self.variance + sigma**2)
        return below * self.mean + spread.sqrt() * (x - alpha * self.mean)


class Fixed:
    """Predicts one image whatever its input, and records the times."""

    def __init__(self, schedule: Schedule, x0: float) -> None:
        self.schedule, self.x0, self.times = schedule, x0, list[Tensor]()

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        self.times.append(t)
        x0 = torch.full_like(x_t, self.x0)
        eps = (x_t - self.schedule.alpha(t).to(x_t.dtype) * x0) / self.schedule.sigma(t).to(x_t.dtype)
        return Estimate(x0, eps, -eps / self.schedule.sigma(t).to(x_t.dtype))


def probe(sampler: Sampler, schedule: Schedule, denoiser: Posterior | None = None) -> dict[str, Tensor]:
    """Gain, offset and noise variance per kind of data (the channels), in one walk.

    The first two images start at 0 and 1 with no noise; each of the others sees one stride's noise alone.
    """
    denoiser = denoiser or Posterior(schedule)
    x = torch.zeros(2 + sampler.steps, denoiser.mean.shape[1], 1, 1)
    x[1] = 1

    def noise(stride: int) -> Tensor:
        one = torch.zeros_like(x)
        one[2 + stride] = 1
        return one

    out = sampler(denoiser, x, noise=noise).flatten(1)
    offset = out[0]
    return {"gain": out[1] - offset, "offset": offset, "noise_var": (out[2:] - offset).square().sum(0)}


class Mixture1d:
    """The exact prediction for numbers drawn from a mixture of normals, each pixel one of them."""

    def __init__(self, schedule: Schedule, weights: list[float], means: list[float], variances: list[float]) -> None:
        self.schedule = schedule
        self.weights, self.means, self.variances = (torch.tensor(part) for part in (weights, means, variances))

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        alpha, sigma = levels(self.schedule, t[0].item())
        spread = alpha**2 * self.variances + sigma**2
        off = x_t.unsqueeze(-1) - alpha * self.means
        share = (self.weights.log() - spread.log() / 2 - off.square() / (2 * spread)).softmax(-1)
        eps = (share * sigma * off / spread).sum(-1)
        x0 = (share * (self.means + alpha * self.variances * off / spread)).sum(-1)
        return Estimate(x0, eps, -(share * off / spread).sum(-1))
