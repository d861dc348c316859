"""Mixtures of Gaussians, one Gaussian among them.

With C_k = alpha^2 S_k + sigma^2 I,

    r_k(x) ~ w_k N(x; alpha m_k, C_k),    mu_k = sigma C_k^-1 (x - alpha m_k),
    eps_hat = sum_k r_k mu_k,    tr Cov[eps | x] = sum_k r_k (tr alpha^2 S_k C_k^-1 + ||mu_k - eps_hat||^2),   (1)
"""

import math
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffexp.data.base import Data
from diffexp.data.mixture import MixtureData
from diffexp.oracle.reference import Reference
from diffexp.shapes import Images

_CACHED = 2**18  # elements of a temporary array that stays in a processor's cache
_NODES = 2**25  # of quadrature, times components: beyond, Monte Carlo is the better choice
_SPACING, _REACH = 0.15, 8.0  # of quadrature nodes, in standard deviations


class _Normals(Reference):
    """Equation (1) in each S_k's eigenbasis.

    Nothing cancels there at any log-SNR: no matrix is inverted, and the variance between components is a sum of
    squares. Work grows as K D^2 per image.
    """

    def __init__(
        self, weights: Float[Tensor, " K"], means: Float[Tensor, "K C H W"], covariances: Float[Tensor, "K D D"]
    ) -> None:
        channels, height, width = means.shape[1:]
        dimension = channels * height * width
        if covariances.shape != (len(means), dimension, dimension) or weights.shape != (len(means),):
            raise ValueError(
                f"weights {tuple(weights.shape)}, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)} do not match: "
                "give (K,), (K, C, H, W) and (K, D, D) with D = C H W."
            )
        if bool((weights < 0).any()) or not math.isclose(float(weights.double().sum()), 1, abs_tol=1e-6):
            raise ValueError(f"weights {[float(w) for w in weights]} are not probabilities: divide them by their sum.")
        self.shape, self.device = (channels, height, width), means.device
        self.weights, self.means = weights.double(), means.double().flatten(1)
        full = covariances.double()
        # numpy's, on the CPU: eigenvectors should not depend on the device.
        values, vectors = np.linalg.eigh(full.cpu().numpy())
        variances, self.axes = torch.as_tensor(values).to(self.device), torch.as_tensor(vectors).to(self.device)
        largest = variances.abs().amax(1, keepdim=True)
        if bool((variances < -1e-6 * largest).any()) or not torch.allclose(
            full, full.mT, rtol=0, atol=1e-6 * float(largest.max())
        ):
            raise ValueError(
                f"a covariance is not symmetric with eigenvalues >= 0 (the smallest is {variances.min().item():.3g}): "
                "make it J^T J, or add a multiple of the identity."
            )
        resolved = largest * dimension * torch.finfo(torch.float64).eps  # below, eigh returns rounding noise
        self.variances = variances.where(variances > resolved, 0)

    def log_density(self, x0: Images, log_snr: float = math.inf) -> Tensor:
        """log p per image, float64 nats, of x0 + (sigma / alpha) eps at this log-SNR: of x0 itself at infinity.

        -inf or inf where x0 has no density.
        """
        x = x0.flatten(1).to(self.device, torch.float64)
        total = self.variances + math.exp(-log_snr)
        residual = torch.einsum("nkd,kde->nke", x[:, None] - self.means, self.axes)
        log_likelihood = -(residual.square() / total + (2 * math.pi * total).log()).sum(2) / 2
        return (self.weights.log() + log_likelihood).logsumexp(1).to(x0.device)

    def conditional_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._conditional_mean(*part) for part in self._parts(x, alpha, sigma)]
        return torch.cat([x0 for x0, _ in parts]), torch.cat([eps for _, eps in parts])

    def conditional_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([self._conditional_variance(*part) for part in self._parts(x, alpha, sigma)])

    def _parts(self, x: Tensor, *levels: Tensor) -> Iterator[tuple[Tensor, ...]]:
        rows = max(1, _CACHED // self.means.numel())
        return zip(*(torch.split(part, rows) for part in (x, *levels)), strict=True)

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r (n, K), C^-1 (x - alpha m) and the eigenvalues of C (n, K, D), in the eigenbases."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        total = alpha.square() * self.variances + sigma.square()
        residual = torch.einsum("nkd,kde->nke", x[:, None] - alpha * self.means, self.axes)
        scaled = residual / total
        log_likelihood = -(residual * scaled + total.log()).sum(2) / 2
        return (self.weights.log() + log_likelihood).softmax(1), scaled, total

    def _conditional_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        share, scaled, _ = self._posterior(x, alpha, sigma)
        scaled = share[..., None] * scaled
        x0 = share @ self.means + alpha * torch.einsum("nke,kde->nd", self.variances * scaled, self.axes)
        return x0, sigma * torch.einsum("nke,kde->nd", scaled, self.axes)

    def _conditional_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        share, scaled, total = self._posterior(x, alpha, sigma)
        signal = alpha[:, None].square() * self.variances
        within = (signal / total).where(signal > 0, 0).sum(2)
        eps = sigma[:, None] * torch.einsum("nke,kde->nkd", scaled, self.axes)
        between = (eps - (share[..., None] * eps).sum(1, keepdim=True)).square().sum(2)
        return (share * (within + between)).sum(1)

    def exact_mmse(self, alpha: Tensor, sigma: Tensor) -> float | None:
        signal = alpha.square() * self.variances
        if len(self.means) == 1:
            return (signal / (signal + sigma.square())).where(signal > 0, 0).sum().item()
        if self.means.shape[1] > 2:
            return None
        # The trapezoid rule in each component's own standard coordinates, which converges faster than any power
        # of the spacing as soon as it resolves the narrowest component.
        std = (signal + sigma.square()).sqrt()
        spacing = _SPACING * std.min() / std
        half = (_REACH / spacing).ceil()
        if float((2 * half + 1).prod(1).sum()) * len(self.means) > _NODES:
            return None
        value = 0.0
        for k, weight in enumerate(map(float, self.weights)):
            axes = [
                step * torch.arange(-int(n), int(n) + 1, dtype=torch.float64, device=self.device)
                for step, n in zip(spacing[k], half[k], strict=True)
            ]
            z = torch.cartesian_prod(*axes).reshape(-1, len(axes))
            x = alpha * self.means[k] + (std[k] * z) @ self.axes[k].T
            density = (-z.square().sum(1) / 2).exp()
            variance = self.conditional_variance(x, alpha.expand(len(x), 1), sigma.expand(len(x), 1))
            value += weight * (density @ variance / density.sum()).item()
        return value

    def _sample_x0(self, u: Tensor, z: Tensor) -> Tensor:
        chosen = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp(max=len(self.weights) - 1)
        x0 = self.means[chosen]
        for k in range(len(self.means)):  # no (n, D, D) array of gathered axes
            here = chosen == k
            x0[here] += (self.variances[k].sqrt() * z[here]) @ self.axes[k].T
        return x0

    @property
    def _cost(self) -> int:
        return 2 * self.axes.numel()


@final
class Mixture(_Normals):
    """x0 ~ sum_k w_k N(m_k, S_k).

    Args:
        weights: (K,), probabilities.
        means: (K, C, H, W).
        covariances: (K, D, D) over the C-order flattening of an image; may be degenerate, 0 included.

    Raises:
        ValueError: The parameters are not those of a mixture of Gaussians.
    """


@final
class Gaussian(_Normals):
    """x0 ~ N(mean, covariance), for which every optimal denoiser is linear.

    Args:
        mean: (C, H, W).
        covariance: (D, D) over the C-order flattening of an image; may be degenerate.

    Raises:
        ValueError: As `Mixture`.
    """

    def __init__(self, mean: Float[Tensor, "C H W"], covariance: Float[Tensor, "D D"]) -> None:
        super().__init__(mean.new_ones(1), mean[None], covariance[None])


def known_density(data: Data) -> Mixture | None:
    """The exact reference of data whose density is known; None for any other."""
    return Mixture(data.weights, data.means, data.covariances) if isinstance(data, MixtureData) else None
