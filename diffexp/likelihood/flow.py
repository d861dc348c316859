"""The likelihood of images under a denoiser's probability flow.

The flow is followed in z = x_t / sqrt(alpha^2 + sigma^2) = cos(phi) x0 + sin(phi) eps, along log-SNR lam,

    dz / dlam = -(sin phi cos phi / 2) (cos(phi) eps_hat - sin(phi) x0_hat),    cot^2(phi) = exp(lam),       (1)

which is finite at both ends on every schedule and as smooth as the data's spectrum. log p gains the divergence of (1)
on the way, estimated from probes of random signs (Song et al. 2021, arXiv:2011.13456, sec. 4.3 and app. D.2;
Hutchinson 1990).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffexp.denoiser import Denoiser
from diffexp.errors import UserError
from diffexp.io.progress import progress
from diffexp.shapes import Images


class FlowNll(NamedTuple):
    """Per image, float64: -log p in nats per dimension, and the standard error of its random part."""

    nats: Tensor
    stderr: Tensor

    @property
    def bits_per_dim(self) -> Tensor:
        """Per 8-bit value if dequantised, else of a density on the scale [-1, 1]."""
        return self.nats / math.log(2)


def flow_nll(
    denoiser: Denoiser,
    x0: Images,
    steps: int = 50,
    draws: int = 2,
    dequantize: bool = False,
    generator: torch.Generator | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
) -> FlowNll:
    """-log p(x0) of the flow that starts from N(0, sigma^2 I) at `t_start`, by the classical Runge-Kutta method.

    The flow is stopped at `t_end`, where a little noise is left: p is the density of x0 + (sigma / alpha) eps there.
    On normal data of variances 0.0025 to 4, three standard deviations out, 50 steps over 28 nats of log-SNR are right
    to 5e-4 nats per dimension, and the error falls as steps^-4; Heun's method with as many evaluations errs by 1e-2.

    Args:
        denoiser: Predicts any target, differentiable in x_t. Called 4 * steps times.
        x0: Images in [-1, 1].
        steps: Equal strides of log-SNR.
        draws: Independent repetitions with their own probes and dequantisation noise, at least 2, done as one batch;
            their spread gives the standard error.
        dequantize: Spread each 8-bit value evenly over its bin and count nats per 8-bit value: on average a
            bound from above on -log of its probability (Theis et al. 2016, arXiv:1511.01844).
        generator: Source of probes and dequantisation, on x0's device.
        t_start: Noise end; None: the schedule's own range.
        t_end: Clean end; None: the schedule's own range.

    Raises:
        UserError: There are fewer than 2 draws or 1 step.
    """
    if draws < 2 or steps < 1:
        raise UserError(f"draws={draws} steps={steps}: a standard error needs 2 draws or more, a flow 1 step.")
    schedule, dtype, device = denoiser.schedule, x0.dtype, x0.device
    ends = torch.tensor(
        [
            time if time is not None else default
            for time, default in zip((t_end, t_start), schedule.time_range, strict=True)
        ],
        dtype=torch.float64,
    )
    high, low = map(float, schedule.log_snr(ends.reshape(-1, 1, 1, 1)))
    # Times are rounded to the dtype that the network sees, and then log-SNR is taken where they landed.
    # There is one at each end of a stride and one in its middle.
    times = schedule.time(torch.linspace(high, low, 2 * steps + 1, dtype=torch.float64)).to(dtype).reshape(-1, 1, 1, 1)
    exact = schedule.exact(times)
    log_snr = [float(lam) for lam in schedule.log_snr(exact)]
    norm = [float(n) for n in (schedule.alpha(exact).square() + schedule.sigma(exact).square()).sqrt()]

    def uniform() -> Tensor:
        return torch.rand((draws * len(x0), *x0.shape[1:]), generator=generator, device=device, dtype=dtype)

    z = x0.repeat(draws, 1, 1, 1)
    if dequantize:
        z = z + (uniform() - 0.5) / 127.5
    probe = (uniform() < 0.5).to(dtype) * 2 - 1
    dimension = z[0].numel()

    def slope(z: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """dz / dlam and the estimate of its divergence."""
        cos, sin = _angle(log_snr[i])
        t = times[i].to(device).expand(len(z), 1, 1, 1)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            estimate = denoiser(norm[i] * z, t)
            rate = -(sin * cos / 2) * (cos * estimate.eps - sin * estimate.x0)
            (pulled,) = torch.autograd.grad((rate * probe).sum(), z)
        return rate.detach(), (pulled * probe).double().sum((1, 2, 3))

    cos, _ = _angle(log_snr[0])
    z = cos * z
    log_det = torch.full((len(z),), dimension * math.log(cos), dtype=torch.float64, device=device)
    for i in progress(range(0, 2 * steps, 2), steps, "probability flow"):
        stride = log_snr[i + 2] - log_snr[i]
        first, div_first = slope(z, i)
        second, div_second = slope(z + stride / 2 * first, i + 1)
        third, div_third = slope(z + stride / 2 * second, i + 1)
        fourth, div_fourth = slope(z + stride * third, i + 2)
        z = z + stride / 6 * (first + 2 * (second + third) + fourth)
        log_det = log_det + stride / 6 * (div_first + 2 * (div_second + div_third) + div_fourth)
    _, sin = _angle(log_snr[-1])
    prior = -(z.double() / sin).square().sum((1, 2, 3)) / 2 - dimension * (math.log(2 * math.pi) / 2 + math.log(sin))
    nats = -(prior + log_det).reshape(draws, len(x0)) / dimension
    if dequantize:
        nats = nats + math.log(127.5)
    return FlowNll(nats.mean(0), nats.std(0) / math.sqrt(draws))


def _angle(log_snr: float) -> tuple[float, float]:
    """cos and sin of phi."""
    phi = math.atan(math.exp(-log_snr / 2))
    return math.cos(phi), math.sin(phi)
