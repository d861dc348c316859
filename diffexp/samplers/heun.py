"""EDM's sampler: Heun's method with the noise level for time."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffexp.samplers.grids import strides
from diffexp.samplers.sampler import CountingDenoiser, Sampler, StrideNoise
from diffexp.shapes import Images


@dataclass
class Heun(Sampler):
    """Heun's method in n = sigma / alpha (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    With y = x / alpha the probability flow is dy / dn = eps. Each stride costs two evaluations; one that ends at
    t = 0, or begins where n is infinite, is Euler's and costs one.
    """

    steps: int = 18
    grid: str | Tensor | Sequence[float] = "karras"

    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        for stride in strides(denoiser.schedule, times):
            estimate = denoiser(x, stride.t)
            x = stride.alpha_s * estimate.x0 + stride.sigma_s * estimate.eps  # Euler: y + (n_s - n_t) eps
            if stride.sigma_s > 0 and stride.alpha_t > 0:
                rise = stride.sigma_s / stride.alpha_s - stride.sigma_t / stride.alpha_t
                x = x + stride.alpha_s * rise / 2 * (denoiser(x, stride.s).eps - estimate.eps)
        return x
