"""The probability flow: the ordinary differential equation in t with the marginals of the noising process."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers.grids import last_time, rates, require_rates
from diffexp.samplers.sampler import CountingDenoiser, Sampler, StrideNoise
from diffexp.schedule import Schedule
from diffexp.shapes import Images

METHODS = ("euler", "heun", "adaptive")


@dataclass
class ProbabilityFlow(Sampler):
    """dx / dt = d alpha / dt x0 + d sigma / dt eps (Song et al. 2021, arXiv:2011.13456, eq. 13).

    At t = 0 the prediction is (x, 0) whatever the network, since x is the image. So Heun's last stride to t = 0 costs
    one evaluation, not two; it is Euler's where d sigma / dt is infinite there.

    Attributes:
        method: `euler` and `heun` make a stride of each interval of the grid. `adaptive` is Dormand & Prince's
            method of order 5 from torchdiffeq, whose first trial step is the grid's first stride. Velocities of an
            imperfect network may grow like 1 / t, so for t_end = 0 it stops at sigma / alpha = 0.002 and ends with
            one Euler step in (sigma / alpha)^2, in which the flow is smooth: it removes half the remaining noise.
        tolerance: Of `adaptive`, relative and absolute, in units of the images (their eq. in appendix D.4: 1e-5);
            the error is a root mean square over the images of a call.
    """

    method: str = "heun"
    tolerance: float = field(default=1e-5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise UserError(f"sampler.method={self.method}: there are {', '.join(METHODS)}.")
        if not 0 < self.tolerance < 1:
            raise UserError(f"sampler.tolerance={self.tolerance}: between 0 and 1, for example 1e-5.")

    def times(self, schedule: Schedule) -> Tensor:
        require_rates("sampler=probability_flow", schedule)
        return super().times(schedule)

    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        if self.method == "adaptive":
            return self._adaptive(x, denoiser, times)
        for t, s in pairwise(map(float, times)):
            velocity = _velocity(x, denoiser, t)
            end = x + (s - t) * velocity
            d_alpha, d_sigma = rates(denoiser.schedule, s)
            if self.method == "euler" or d_sigma == float("inf"):
                x = end
            else:
                velocity_end = _velocity(end, denoiser, s) if s > 0 else d_alpha * end
                x = x + (s - t) / 2 * (velocity + velocity_end)
        return x

    def _adaptive(self, x: Images, denoiser: CountingDenoiser, times: Tensor) -> Images:
        start, end = self.t_start, self.t_end or last_time(denoiser.schedule)
        if start > end:
            x = self._integrated(x, denoiser, start, end, first_step=(times[0] - times[1]).item())
        if self.t_end:
            return x
        t = torch.full((1, 1, 1, 1), min(start, end), dtype=torch.float64)
        alpha, sigma = denoiser.schedule.alpha(t).item(), denoiser.schedule.sigma(t).item()
        return (x - sigma / 2 * denoiser(x, t.item()).eps) / alpha

    def _integrated(self, x: Images, denoiser: CountingDenoiser, start: float, end: float, first_step: float) -> Images:
        try:
            import torchdiffeq  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as missing:
            raise UserError(
                "sampler.method=adaptive integrates with torchdiffeq, which is not installed: "
                '`pip install "diffexp[ode]"`, or take method=heun.'
            ) from missing
        integrate = cast(Any, torchdiffeq).odeint
        ends = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        options = {"first_step": first_step, "step_t": ends[1:]}  # without step_t it overshoots
        limits = {"rtol": self.tolerance, "atol": self.tolerance}

        def velocity(t: Tensor, x: Images) -> Images:
            return _velocity(x, denoiser, t.item())

        try:
            path = integrate(velocity, x, ends, **limits, method="dopri5", options=options)
        except AssertionError as stuck:
            raise UserError(
                f"{self!r} cannot continue: {stuck}. Increase sampler.tolerance, or take method=heun, "
                "whose steps are fixed."
            ) from stuck
        return path[-1]


def _velocity(x: Images, denoiser: CountingDenoiser, t: float) -> Images:
    estimate, (d_alpha, d_sigma) = denoiser(x, t), rates(denoiser.schedule, t)
    return d_alpha * estimate.x0 + d_sigma * estimate.eps
