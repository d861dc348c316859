"""DDPM's reverse chain: a draw from a normal with the posterior's mean."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers.grids import Stride
from diffexp.samplers.sampler import OneEvaluation, require_signal
from diffexp.schedule import Schedule
from diffexp.shapes import Images
from diffexp.targets import Estimate

VARIANCES = ("beta", "beta_tilde", "optimal")


@dataclass
class Ancestral(OneEvaluation):
    """DDPM's reverse chain (Ho et al. 2020, arXiv:2006.11239, algorithm 2); the last step to t = 0 adds no noise.

    Attributes:
        variance: beta is right for unit normal data, beta_tilde for a single image; optimal for the data whose
            `mmse` is given (Bao et al. 2022, arXiv:2201.06503, theorem 1):
            beta_tilde + (beta / (ratio sigma_t))^2 mmse_eps.
        mmse: The smallest mean squared eps-error per dimension at a log-SNR (nats, float64 (1,), and so the
            result); required by `optimal`: `mmse_eps` of the likelihood and of the exact references.
    """

    steps: int = 1000
    variance: str = "beta"
    mmse: Callable[[Tensor], Tensor] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in VARIANCES:
            raise UserError(f"sampler.variance={self.variance}: there are {', '.join(VARIANCES)}.")
        if self.variance == "optimal" and self.mmse is None:
            raise UserError(
                "sampler.variance=optimal depends on the data: pass mmse=, the smallest mean squared eps-error per "
                "dimension as a function of log-SNR. Or take variance=beta or beta_tilde, which do not."
            )

    def times(self, schedule: Schedule) -> Tensor:
        if self.variance == "optimal":
            require_signal("sampler.variance=optimal", schedule, self.t_start)
        return super().times(schedule)

    def move(self, estimate: Estimate, stride: Stride) -> tuple[Images, float]:
        mean = stride.alpha_s * estimate.x0 + stride.ratio * stride.sigma_s**2 / stride.sigma_t * estimate.eps
        return mean, self._variance(stride) ** 0.5 if stride.sigma_s > 0 else 0.0

    def _variance(self, stride: Stride) -> float:
        if self.variance == "beta":
            return stride.beta
        if self.mmse is None or self.variance == "beta_tilde":
            return stride.beta_tilde
        mmse = self.mmse(torch.tensor([stride.log_snr_t], dtype=torch.float64)).item()
        if not 0 <= mmse <= 1 + 1e-6:
            raise UserError(
                f"mmse({stride.log_snr_t:g}) = {mmse:g}: a squared eps-error per dimension lies between 0 and 1, its "
                "value for the prediction eps = 0. Divide a sum over dimensions by their number."
            )
        return stride.beta_tilde + (stride.beta / (stride.ratio * stride.sigma_t)) ** 2 * mmse
