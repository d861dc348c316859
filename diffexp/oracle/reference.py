"""The interface of an exact reference: the optimal denoiser, and its eps-error at any log-SNR."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from diffexp.denoiser import Denoiser
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Target

_MULTIPLICATIONS = 2**31  # spent on one log-SNR by Monte Carlo, within the counts below
_FEWEST, _MOST = 256, 2**13


class Reference(ABC):
    """Data of known density. Images have `shape` (C, H, W), D = C H W.

    Attributes:
        shape: Of one image.
        device: Where everything is computed, whatever the device of the arguments.
    """

    shape: tuple[int, int, int]
    device: torch.device

    def denoiser(self, schedule: Schedule, target: Target) -> Denoiser:
        """The optimal denoiser, with predictions in `target` space; float32 and float64 images alike.

        Differentiable in x_t. At sigma = 0 it is defined where the data has a density.
        """
        return Denoiser(_Exact(self, schedule, target), schedule, target)

    def bayes_eps(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """(mmse_eps, its standard error), each float64 and shaped like `log_snr`, summed over the D dimensions.

        The standard error is 0 where the value is exact: one Gaussian by its closed form, and mixtures and points
        in one or two dimensions by quadrature (to 1e-8). Elsewhere it is the mean of tr Cov[eps | x_t] over draws, so
        that no label noise enters. The draws are the same at every log-SNR and in every call.

        Args:
            log_snr: log(alpha^2 / sigma^2) in nats, finite, any shape.
        """
        found = [self._bayes_eps(lam) for lam in log_snr.detach().double().flatten().cpu()]
        columns = torch.tensor(found, dtype=torch.float64).reshape(-1, 2).T
        value, stderr = (column.reshape(log_snr.shape).to(log_snr.device) for column in columns)
        return value, stderr

    @abstractmethod
    def conditional_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(E[x0 | x], E[eps | x]), each (n, D), at x (n, D), alpha and sigma (n, 1); float64 on `device`."""

    @abstractmethod
    def conditional_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """tr Cov[eps | x], (n,), arguments as in `conditional_mean`."""

    @abstractmethod
    def exact_mmse(self, alpha: Tensor, sigma: Tensor) -> float | None:
        """mmse_eps without sampling, or None where that is not possible; alpha and sigma are scalars."""

    @abstractmethod
    def _sample_x0(self, u: Tensor, z: Tensor) -> Tensor:
        """Draws of x0 (n, D) from uniform u (n,) and unit normal z (n, D)."""

    @property
    @abstractmethod
    def _cost(self) -> int:
        """Multiplications that `conditional_variance` makes for one x."""

    def _bayes_eps(self, log_snr: Tensor) -> tuple[float, float]:
        log_snr = log_snr.to(self.device)
        alpha, sigma = (logsigmoid(log_snr) / 2).exp(), (logsigmoid(-log_snr) / 2).exp()
        if (exact := self.exact_mmse(alpha, sigma)) is not None:
            return exact, 0.0
        count = max(_FEWEST, min(_MOST, _MULTIPLICATIONS // self._cost))
        # On the CPU whatever the device, so that the draws are the same everywhere.
        generator = torch.Generator().manual_seed(0)
        # One u in each of `count` strata; the standard error, which ignores them, is an overestimate.
        u = (torch.arange(count) + torch.rand(count, dtype=torch.float64, generator=generator)) / count
        z, eps = (
            torch.randn(count, math.prod(self.shape), dtype=torch.float64, generator=generator).to(self.device)
            for _ in range(2)
        )
        x = alpha * self._sample_x0(u.to(self.device), z) + sigma * eps
        variance = self.conditional_variance(x, alpha.expand(count, 1), sigma.expand(count, 1))
        return variance.mean().item(), variance.std().item() / math.sqrt(count)


class _Exact(nn.Module):
    """A `Reference` as a network."""

    def __init__(self, reference: Reference, schedule: Schedule, target: Target) -> None:
        super().__init__()
        self.reference, self.schedule, self.target = reference, schedule, target

    def forward(self, x_t: Images, t: PerImage) -> Images:
        reference = self.reference
        if x_t.shape[1:] != reference.shape:
            raise ValueError(f"images of shape {tuple(x_t.shape[1:])}: this denoiser is exact for {reference.shape}.")
        time = self.schedule.exact(t)
        a, b, _ = (part.flatten(1).to(reference.device) for part in self.target.coefficients(self.schedule, time))
        levels = (self.schedule.alpha(time), self.schedule.sigma(time))
        alpha, sigma = (level.flatten(1).to(reference.device) for level in levels)
        x0, eps = reference.conditional_mean(x_t.flatten(1).to(reference.device, torch.float64), alpha, sigma)
        return (a * x0 + b * eps).reshape(x_t.shape).to(x_t)
