"""The noising process run backwards, as a stochastic differential equation in t."""

from dataclasses import dataclass, field

from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers.beliefs import Beliefs
from diffexp.samplers.rates import rates, refuse_chain
from diffexp.samplers.sampler import Fresh, Sampler, refuse_no_image
from diffexp.samplers.strides import Stride, strides
from diffexp.schedule import Schedule
from diffexp.shapes import Images


@dataclass
class ReverseSde(Sampler):
    """Euler-Maruyama on dx = (f x - g^2 score) dt + g dw (Song et al. 2021, arXiv:2011.13456, eq. 6).

    f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2. There is no denoising at the end: images carry the
    noise of t_end. Strides are of time, since that is what the method steps in.

    Attributes:
        langevin: Signal-to-noise ratio r of a corrector step after every stride, 0 for none (their algorithms 4
            and 5; 0.16 for their CIFAR-10): x + e score + sqrt(2 e) z with e = 2 ratio^2 (r |z| / |score|)^2, the
            norms taken image by image. It doubles the evaluations; its noise is number steps + i.
    """

    steps: int = 1000
    t_end: float = 1e-3
    langevin: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.langevin < float("inf"):
            raise UserError(f"sampler.langevin={self.langevin}: a signal-to-noise ratio, 0 for no corrector, or 0.16.")
        if self.langevin and self.t_end == 0:
            raise UserError(
                f"sampler.langevin={self.langevin} down to t_end=0: without noise there is no score to follow. Set "
                "sampling.t_end=0.001, or langevin=0."
            )

    def times(self, schedule: Schedule) -> Tensor:
        refuse_chain("sampler=reverse_sde", schedule)
        refuse_no_image("sampler=reverse_sde", schedule, self.t_start)
        return super().times(schedule)

    def walk(self, x: Images, beliefs: Beliefs, times: Tensor, fresh: Fresh) -> Images:
        for i, stride in enumerate(strides(beliefs.schedule, times)):
            d_alpha, d_sigma = rates(beliefs.schedule, stride.t)
            f = d_alpha / stride.alpha_t
            g2 = 2 * stride.sigma_t * (d_sigma - f * stride.sigma_t)
            h = stride.t - stride.s
            x = x - h * (f * x - g2 * beliefs(x, stride.t).score) + (g2 * h) ** 0.5 * fresh(i)
            if self.langevin:
                x = self._correct(x, beliefs, stride, fresh(self.steps + i))
        return x

    def _correct(self, x: Images, beliefs: Beliefs, stride: Stride, z: Images) -> Images:
        score = beliefs(x, stride.s).score
        share = z.square().sum((1, 2, 3), keepdim=True) / score.square().sum((1, 2, 3), keepdim=True)
        size = 2 * (stride.ratio * self.langevin) ** 2 * share
        return x + size * score + (2 * size).sqrt() * z
