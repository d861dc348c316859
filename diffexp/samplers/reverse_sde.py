"""The time reversal of the noising process, as a stochastic differential equation in t."""

from dataclasses import dataclass, field

from torch import Tensor

from diffexp.errors import UserError
from diffexp.samplers.grids import Stride, rates, require_rates, strides
from diffexp.samplers.sampler import CountingDenoiser, Sampler, StrideNoise, require_signal
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
            norms taken image by image. It doubles the evaluations; its noise is noise(steps + i).
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
        require_rates("sampler=reverse_sde", schedule)
        require_signal("sampler=reverse_sde", schedule, self.t_start)
        return super().times(schedule)

    def walk(self, x: Images, denoiser: CountingDenoiser, times: Tensor, noise: StrideNoise) -> Images:
        for i, stride in enumerate(strides(denoiser.schedule, times)):
            d_alpha, d_sigma = rates(denoiser.schedule, stride.t)
            f = d_alpha / stride.alpha_t
            g2 = 2 * stride.sigma_t * (d_sigma - f * stride.sigma_t)
            h = stride.t - stride.s
            x = x - h * (f * x - g2 * denoiser(x, stride.t).score) + (g2 * h) ** 0.5 * noise(i)
            if self.langevin:
                x = self._correct(x, denoiser, stride, noise(self.steps + i))
        return x

    def _correct(self, x: Images, denoiser: CountingDenoiser, stride: Stride, z: Images) -> Images:
        score = denoiser(x, stride.s).score
        ratio = z.square().sum((1, 2, 3), keepdim=True) / score.square().sum((1, 2, 3), keepdim=True)
        size = 2 * (stride.ratio * self.langevin) ** 2 * ratio
        return x + size * score + (2 * size).sqrt() * z
