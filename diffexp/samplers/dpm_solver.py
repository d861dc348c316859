"""DPM-Solver++(2M): the predicted image, extrapolated from two strides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffexp.samplers.grids import strides
from diffexp.samplers.sampler import CountingDenoiser, Sampler, StrideNoise
from diffexp.shapes import Images


@dataclass
class DpmSolverPP2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    x_s = (sigma_s / sigma_t) x_t - alpha_s expm1(-h) ((1 + 1 / 2r) x0_t - x0_u / 2r), with u the time before t,
    h half the rise of log-SNR over the stride and r the last h by this one. One evaluation a stride. First order
    in the first stride, where there is no u, and in one to t = 0, where h is infinite.
    """

    grid: str | Tensor | Sequence[float] = "time"

    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        previous: tuple[Images, float] | None = None
        for stride in strides(denoiser.schedule, times):
            h = (stride.log_snr_s - stride.log_snr_t) / 2
            x0 = extrapolated = denoiser(x, stride.t).x0
            if previous is not None and stride.sigma_s > 0:
                extrapolated = x0 + h / (2 * previous[1]) * (x0 - previous[0])
            x = stride.sigma_s / stride.sigma_t * x - stride.alpha_s * math.expm1(-h) * extrapolated
            previous = x0, h
        return x
