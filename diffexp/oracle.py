"""Denoisers that are exactly right, for data whose density is known.

    eps_hat = E[eps | x_t],    mmse_eps = E ||eps - eps_hat||^2 = E tr Cov[eps | x_t]

Everything that is best possible follows from these two. mmse_eps is a function of log-SNR alone, because x_t / alpha
holds the same information on every schedule; `bayes` turns it into the least loss of any target.

For a mixture of Gaussians, with C_k = alpha^2 S_k + sigma^2 I,

    r_k(x) ~ w_k N(x; alpha m_k, C_k),    mu_k = sigma C_k^-1 (x - alpha m_k),
    eps_hat = sum_k r_k mu_k,    tr Cov[eps | x] = sum_k r_k (tr alpha^2 S_k C_k^-1 + ||mu_k - eps_hat||^2),   (1)

and a finite data set is the same with every S_k = 0. All of it is computed in float64, whatever comes in.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from diffexp.data.base import Data
from diffexp.data.mixture import MixtureData
from diffexp.denoiser import Denoiser
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Target

_CACHED = 2**18  # elements of a temporary array that stays in a processor's cache
_BLOCK = 2**22  # elements of data in double precision at once: 32 MiB
_MULTIPLICATIONS = 2**31  # spent on one log-SNR by Monte Carlo, within the counts below
_FEWEST, _MOST = 256, 2**13
_FEW = 16  # images that may be taken one by one
_NODES = 2**25  # of quadrature, times components: beyond, Monte Carlo is the better answer
_SPACING, _REACH = 0.15, 8.0  # of quadrature nodes, in standard deviations


class Reference(ABC):
    """Data of known density. Images have `shape` (C, H, W), D = C H W.

    Attributes:
        shape: Of one image.
        device: Where the computing happens, whatever device the question comes from.
    """

    shape: tuple[int, int, int]
    device: torch.device

    def denoiser(self, schedule: Schedule, target: Target) -> Denoiser:
        """The best possible denoiser, answering in `target` space; float32 and float64 images alike.

        Differentiable in x_t. At sigma = 0 it is defined where the data has a density.
        """
        return Denoiser(_Exact(self, schedule, target), schedule, target)

    def bayes_eps(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """(mmse_eps, its standard error), each float64 and shaped like `log_snr`, summed over the D dimensions.

        The standard error is 0 where the value is exact: one Gaussian by its closed form, and mixtures and points
        in one or two dimensions by quadrature (to 1e-8). Elsewhere it is the mean of (1) over draws of x_t, so that
        no label noise enters. The draws are the same at every log-SNR and in every call.

        Args:
            log_snr: log(alpha^2 / sigma^2) in nats, finite, any shape.
        """
        found = [self._bayes_eps(lam) for lam in log_snr.detach().double().flatten().cpu()]
        columns = torch.tensor(found, dtype=torch.float64).reshape(-1, 2).T
        value, stderr = (column.reshape(log_snr.shape).to(log_snr.device) for column in columns)
        return value, stderr

    @abstractmethod
    def belief(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(E[x0 | x], E[eps | x]), each (n, D), at x (n, D), alpha and sigma (n, 1); float64 on `device`."""

    @abstractmethod
    def spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """tr Cov[eps | x], (n,), arguments as in `belief`."""

    @abstractmethod
    def exact_eps(self, alpha: Tensor, sigma: Tensor) -> float | None:
        """mmse_eps without sampling, if that can be had; alpha and sigma are scalars."""

    @abstractmethod
    def _place(self, u: Tensor, z: Tensor) -> Tensor:
        """Draws of x0 (n, D) from uniform u (n,) and unit normal z (n, D)."""

    @property
    @abstractmethod
    def _work(self) -> int:
        """Multiplications that `spread` makes for one x."""

    def _bayes_eps(self, log_snr: Tensor) -> tuple[float, float]:
        log_snr = log_snr.to(self.device)
        alpha, sigma = (logsigmoid(log_snr) / 2).exp(), (logsigmoid(-log_snr) / 2).exp()
        if (exact := self.exact_eps(alpha, sigma)) is not None:
            return exact, 0.0
        count = max(_FEWEST, min(_MOST, _MULTIPLICATIONS // self._work))
        # On the CPU whatever the device, so that the draws are the same everywhere.
        made = torch.Generator().manual_seed(0)
        # One u in each of `count` strata; the standard error, which ignores them, errs on the large side.
        u = (torch.arange(count) + torch.rand(count, dtype=torch.float64, generator=made)) / count
        z, eps = (
            torch.randn(count, math.prod(self.shape), dtype=torch.float64, generator=made).to(self.device)
            for _ in range(2)
        )
        x = alpha * self._place(u.to(self.device), z) + sigma * eps
        spread = self.spread(x, alpha.expand(count, 1), sigma.expand(count, 1))
        return spread.mean().item(), spread.std().item() / math.sqrt(count)


class _Exact(nn.Module):
    """The network that a `Reference` would be."""

    def __init__(self, reference: Reference, schedule: Schedule, target: Target) -> None:
        super().__init__()
        self.reference, self.schedule, self.target = reference, schedule, target

    def forward(self, x_t: Images, t: PerImage) -> Images:
        known = self.reference
        if x_t.shape[1:] != known.shape:
            raise ValueError(f"images of shape {tuple(x_t.shape[1:])}: this denoiser is exact for {known.shape}.")
        time = self.schedule.exact(t)
        a, b, _ = (part.flatten(1).to(known.device) for part in self.target.coefficients(self.schedule, time))
        levels = (self.schedule.alpha(time), self.schedule.sigma(time))
        alpha, sigma = (level.flatten(1).to(known.device) for level in levels)
        x0, eps = known.belief(x_t.flatten(1).to(known.device, torch.float64), alpha, sigma)
        return (a * x0 + b * eps).reshape(x_t.shape).to(x_t)


class _Normals(Reference):
    """Equation (1) in each S_k's eigenbasis.

    Nothing cancels there at any log-SNR: no matrix is inverted, and the spread between components is a sum of
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
                f"{tuple(covariances.shape)} do not belong together: "
                "give (K,), (K, C, H, W) and (K, D, D) with D = C H W."
            )
        if bool((weights < 0).any()) or not math.isclose(float(weights.double().sum()), 1, abs_tol=1e-6):
            raise ValueError(f"weights {[float(w) for w in weights]} are not probabilities: divide them by their sum.")
        self.shape, self.device = (channels, height, width), means.device
        self.weights, self.means = weights.double(), means.double().flatten(1)
        whole = covariances.double()
        # numpy's, on the CPU: eigenvectors should not depend on the device.
        values, vectors = np.linalg.eigh(whole.cpu().numpy())
        variances, self.axes = torch.as_tensor(values).to(self.device), torch.as_tensor(vectors).to(self.device)
        largest = variances.abs().amax(1, keepdim=True)
        if bool((variances < -1e-6 * largest).any()) or not torch.allclose(
            whole, whole.mT, rtol=0, atol=1e-6 * float(largest.max())
        ):
            raise ValueError(
                f"a covariance is not symmetric with eigenvalues >= 0 (the smallest is {variances.min().item():.3g}): "
                "make it J^T J, or add a multiple of the identity."
            )
        resolved = largest * dimension * torch.finfo(torch.float64).eps  # below, eigh returns rounding noise
        self.variances = variances.where(variances > resolved, 0)

    def belief(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._belief(*part) for part in self._parts(x, alpha, sigma)]
        return torch.cat([x0 for x0, _ in parts]), torch.cat([eps for _, eps in parts])

    def spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([self._spread(*part) for part in self._parts(x, alpha, sigma)])

    def _parts(self, x: Tensor, *levels: Tensor) -> Iterator[tuple[Tensor, ...]]:
        rows = max(1, _CACHED // self.means.numel())
        return zip(*(torch.split(part, rows) for part in (x, *levels)), strict=True)

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r (n, K), C^-1 (x - alpha m) and the eigenvalues of C (n, K, D), in the eigenbases."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        total = alpha.square() * self.variances + sigma.square()
        away = torch.einsum("nkd,kde->nke", x[:, None] - alpha * self.means, self.axes)
        news = away / total
        log_likelihood = -(away * news + total.log()).sum(2) / 2
        return (self.weights.log() + log_likelihood).softmax(1), news, total

    def _belief(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        share, news, _ = self._posterior(x, alpha, sigma)
        news = share[..., None] * news
        x0 = share @ self.means + alpha * torch.einsum("nke,kde->nd", self.variances * news, self.axes)
        return x0, sigma * torch.einsum("nke,kde->nd", news, self.axes)

    def _spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        share, news, total = self._posterior(x, alpha, sigma)
        signal = alpha[:, None].square() * self.variances
        within = (signal / total).where(signal > 0, 0).sum(2)
        eps = sigma[:, None] * torch.einsum("nke,kde->nkd", news, self.axes)
        between = (eps - (share[..., None] * eps).sum(1, keepdim=True)).square().sum(2)
        return (share * (within + between)).sum(1)

    def exact_eps(self, alpha: Tensor, sigma: Tensor) -> float | None:
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
            spread = self.spread(x, alpha.expand(len(x), 1), sigma.expand(len(x), 1))
            value += weight * (density @ spread / density.sum()).item()
        return value

    def _place(self, u: Tensor, z: Tensor) -> Tensor:
        chosen = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp(max=len(self.weights) - 1)
        x0 = self.means[chosen]
        for k in range(len(self.means)):  # no (n, D, D) array of gathered axes
            here = chosen == k
            x0[here] += (self.variances[k].sqrt() * z[here]) @ self.axes[k].T
        return x0

    @property
    def _work(self) -> int:
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


@final
class FiniteData(Reference):
    """x0 is one of N images, each as likely: what a network that has memorised them would know.

    The posterior is a softmax over -||x_t - alpha x_i||^2 / (2 sigma^2). Images are visited in blocks, in float64,
    and stay stored as they are: 50,000 CIFAR-10 images take their own 600 MB and some 1.5 GB while at work. Distances
    come from products of centred images and are right to about 1e-13, which tells images apart up to log-SNR 26 or so.

    Args:
        images: (N, C, H, W), float in [-1, 1], on the device that is to do the work.

    Raises:
        ValueError: There are no images, or they are integers.
    """

    def __init__(self, images: Float[Tensor, "N C H W"]) -> None:
        if not len(images) or not images.is_floating_point():
            raise ValueError(
                f"{len(images)} images of {images.dtype}: give at least one, as float in [-1, 1], "
                "for example images / 127.5 - 1."
            )
        channels, height, width = images.shape[1:]
        self.shape, self.device = (channels, height, width), images.device
        self.images = images.flatten(1)
        self.block = max(1, _BLOCK // self.images.shape[1])
        self.centre = torch.zeros(self.images.shape[1], dtype=torch.float64, device=self.device)
        self.centre = torch.stack([part.sum(0) for part in self._blocks()]).sum(0) / len(images)
        self.squares = torch.cat([part.square().sum(1) for part in self._blocks()])

    def belief(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x0 = torch.cat([self.centre + self._mean(self._shares(*part)) for part in self._parts(x, alpha, sigma)])
        return x0, (x - alpha * x0) / sigma

    def spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([self._spread(*part) for part in self._parts(x, alpha, sigma)])

    def _parts(self, x: Tensor, *levels: Tensor) -> Iterator[tuple[Tensor, ...]]:
        rows = max(1, 2 * _BLOCK // len(self.images))
        return zip(*(torch.split(part, rows) for part in (x, *levels)), strict=True)

    def _blocks(self) -> Iterator[Tensor]:
        return (part - self.centre for part in torch.split(self.images, self.block))  # float64, as the centre is

    def _products(self, x: Tensor) -> Tensor:
        """x (n, D) with each centred image, (n, N)."""
        return torch.cat([x @ part.T for part in self._blocks()], dim=1)

    def _mean(self, shares: Tensor) -> Tensor:
        """Centred images averaged by `shares` (n, N)."""
        parts = zip(torch.split(shares, self.block, dim=1), self._blocks(), strict=True)
        return torch.stack([share @ part for share, part in parts]).sum(0)

    def _shares(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        products = self._products(x - alpha * self.centre)
        return (alpha / sigma.square() * (products - alpha / 2 * self.squares)).softmax(1)

    def _spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        shares = self._shares(x, alpha, sigma)
        contested = shares.amax(1) < 1
        spread = torch.zeros_like(x[:, 0])
        if contested.any():
            rate = (alpha / sigma)[contested, 0].square()
            spread[contested] = rate * self._variance(shares[contested])
        return spread

    def _variance(self, shares: Tensor) -> Tensor:
        """tr Cov[x0] under `shares` (n, N), (n,).

        The likeliest few images enter as squared differences. The others, by the moments about the mean: where
        those would cancel, at high log-SNR, nothing is left for the others.
        """
        few, which = torch.topk(shares, min(_FEW, len(self.images)), dim=1)
        near = self.images[which] - self.centre
        rest = shares.scatter(1, which, 0)
        others = self._mean(rest)
        mean = (few[..., None] * near).sum(1) + others
        within = (few * (near - mean[:, None]).square().sum(2)).sum(1)
        beyond = (rest * (self.squares + mean.square().sum(1, keepdim=True))).sum(1) - 2 * (others * mean).sum(1)
        return within + beyond.clamp(min=0)

    def exact_eps(self, alpha: Tensor, sigma: Tensor) -> float | None:
        count, dimension = self.images.shape
        if dimension > 2:
            return 0.0 if count == 1 else None
        weights = torch.full((count,), 1 / count, dtype=torch.float64, device=self.device)
        points = self.images.double().reshape(count, *self.shape)
        return Mixture(weights, points, points.new_zeros(count, dimension, dimension)).exact_eps(alpha, sigma)

    def _place(self, u: Tensor, z: Tensor) -> Tensor:
        return self.images[(u * len(self.images)).long().clamp(max=len(self.images) - 1)].double()

    @property
    def _work(self) -> int:
        return 2 * self.images.numel()


def known_density(data: Data) -> Mixture | None:
    """The reference of data whose density is known; None for data that are images and nothing more."""
    return Mixture(data.weights, data.means, data.covariances) if isinstance(data, MixtureData) else None
