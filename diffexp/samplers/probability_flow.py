"""The probability flow: the ordinary differential equation in t with the marginals of the noising process."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers.beliefs import Beliefs
from diffexp.samplers.grids import last_time
from diffexp.samplers.rates import rates, refuse_chain
from diffexp.samplers.sampler import Fresh, Sampler
from diffexp.schedule import Schedule
from diffexp.shapes import Images

METHODS = ("euler", "heun", "adaptive")


@dataclass
class ProbabilityFlow(Sampler):
    """dx / dt = d alpha / dt x0 + d sigma / dt eps (Song et al. 2021, arXiv:2011.13456, eq. 13).

    At t = 0 the belief is (x, 0) whatever the network: the image is seen, and its noise is anyone's guess. So Heun's
    last stride to t = 0 costs one evaluation, not two; it is Euler's where d sigma / dt is infinite there.

    Attributes:
        method: `euler` and `heun` make a stride of each interval of the grid. `adaptive` is Dormand & Prince's
            method of order 5 by torchdiffeq, whose first trial is the grid's first stride. As velocities of an
            imperfect network may grow like 1 / t, it stops at sigma / alpha = 0.002 short of t_end = 0, and ends with
            one Euler step in (sigma / alpha)^2, in which the flow is smooth: half the remaining noise goes.
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
        refuse_chain("sampler=probability_flow", schedule)
        return super().times(schedule)

    def walk(self, x: Images, beliefs: Beliefs, times: Tensor, fresh: Fresh) -> Images:
        if self.method == "adaptive":
            return self._adaptive(x, beliefs, times)
        for t, s in pairwise(map(float, times)):
            velocity = _velocity(x, beliefs, t)
            there = x + (s - t) * velocity
            d_alpha, d_sigma = rates(beliefs.schedule, s)
            if self.method == "euler" or d_sigma == float("inf"):
                x = there
            else:
                arriving = _velocity(there, beliefs, s) if s > 0 else d_alpha * there
                x = x + (s - t) / 2 * (velocity + arriving)
        return x

    def _adaptive(self, x: Images, beliefs: Beliefs, times: Tensor) -> Images:
        start, end = self.t_start, self.t_end or last_time(beliefs.schedule)
        if start > end:
            x = self._integrated(x, beliefs, start, end, first_step=(times[0] - times[1]).item())
        if self.t_end:
            return x
        t = torch.full((1, 1, 1, 1), min(start, end), dtype=torch.float64)
        alpha, sigma = beliefs.schedule.alpha(t).item(), beliefs.schedule.sigma(t).item()
        return (x - sigma / 2 * beliefs(x, t.item()).eps) / alpha

    def _integrated(self, x: Images, beliefs: Beliefs, start: float, end: float, first_step: float) -> Images:
        try:
            import torchdiffeq  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as missing:
            raise UserError(
                "sampler.method=adaptive integrates with torchdiffeq, which is not installed: "
                '`pip install "diffexp[ode]"`, or take method=heun.'
            ) from missing
        integrate = cast(Any, torchdiffeq).odeint
        ends = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        options = {"first_step": first_step, "step_t": ends[1:]}  # without step_t it would overshoot and look back
        limits = {"rtol": self.tolerance, "atol": self.tolerance}

        def velocity(t: Tensor, x: Images) -> Images:
            return _velocity(x, beliefs, t.item())

        try:
            path = integrate(velocity, x, ends, **limits, method="dopri5", options=options)
        except AssertionError as stuck:
            raise UserError(
                f"{self!r} cannot go on: {stuck}. Loosen sampler.tolerance, or take method=heun, which walks through."
            ) from stuck
        return path[-1]


def _velocity(x: Images, beliefs: Beliefs, t: float) -> Images:
    belief, (d_alpha, d_sigma) = beliefs(x, t), rates(beliefs.schedule, t)
    return d_alpha * belief.x0 + d_sigma * belief.eps
