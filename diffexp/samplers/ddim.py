"""DDIM: the predicted image, renoised with the predicted noise."""

from dataclasses import dataclass

from diffexp.errors import UserError
from diffexp.samplers.grids import Stride
from diffexp.samplers.sampler import OneEvaluation
from diffexp.shapes import Images
from diffexp.targets import Estimate


@dataclass
class Ddim(OneEvaluation):
    """DDIM (Song, Meng & Ermon 2021, arXiv:2010.02502, eq. 12 and 16).

    At eta = 0 it is Euler's method in sigma / alpha, and on the straight line Euler's method in t.

    Attributes:
        eta: 0 is deterministic; 1 is `Ancestral` with variance beta_tilde.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"sampler.eta={self.eta}: from 0 (no noise) to 1 (as much as the chain's beta_tilde).")

    def move(self, estimate: Estimate, stride: Stride) -> tuple[Images, float]:
        variance = self.eta**2 * stride.beta_tilde
        kept = max(stride.sigma_s**2 - variance, 0.0) ** 0.5
        return stride.alpha_s * estimate.x0 + kept * estimate.eps, variance**0.5
