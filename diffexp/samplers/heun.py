"""EDM's sampler: Heun's method with the noise level for time."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffexp.samplers.beliefs import Beliefs
from diffexp.samplers.sampler import Fresh, Sampler
from diffexp.samplers.strides import strides
from diffexp.shapes import Images


@dataclass
class Heun(Sampler):
    """Heun's method in n = sigma / alpha (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    With y = x / alpha the probability flow is dy / dn = eps. Each stride costs two evaluations; one that ends at
    t = 0, or begins where n is infinite, is Euler's and costs one.
    """

    steps: int = 18
    grid: str | Tensor | Sequence[float] = "karras"

    def walk(self, x: Images, beliefs: Beliefs, times: Tensor, fresh: Fresh) -> Images:
        for stride in strides(beliefs.schedule, times):
            belief = beliefs(x, stride.t)
            x = stride.alpha_s * belief.x0 + stride.sigma_s * belief.eps  # Euler: y + (n_s - n_t) eps
            if stride.sigma_s > 0 and stride.alpha_t > 0:
                rise = stride.sigma_s / stride.alpha_s - stride.sigma_t / stride.alpha_t
                x = x + stride.alpha_s * rise / 2 * (beliefs(x, stride.s).eps - belief.eps)
        return x
