"""A finite set of images: a mixture of points."""

from collections.abc import Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from diffexp.oracle.normals import Mixture
from diffexp.oracle.reference import Reference

_BLOCK = 2**22  # elements of data in double precision at once: 32 MiB
_FEW = 16  # images whose differences are computed one by one


@final
class FiniteData(Reference):
    """x0 is one of N equally likely images: the optimum is a network that has memorised them.

    The posterior is a softmax over -||x_t - alpha x_i||^2 / (2 sigma^2). Images are visited in blocks, in float64,
    and stay stored as they are: 50,000 CIFAR-10 images take their own 600 MB and some 1.5 GB of workspace. Distances
    come from products of centred images and are right to about 1e-13, enough to distinguish images up to log-SNR 26.

    Args:
        images: (N, C, H, W), float in [-1, 1], on the device where everything is computed.

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

    def conditional_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x0 = torch.cat([self.centre + self._mean(self._shares(*part)) for part in self._parts(x, alpha, sigma)])
        return x0, (x - alpha * x0) / sigma

    def conditional_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([self._conditional_variance(*part) for part in self._parts(x, alpha, sigma)])

    def _parts(self, x: Tensor, *levels: Tensor) -> Iterator[tuple[Tensor, ...]]:
        count, dimension = self.images.shape
        rows = max(1, 2 * _BLOCK // max(count, min(_FEW, count) * dimension))
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

    def _conditional_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        shares = self._shares(x, alpha, sigma)
        contested = shares.amax(1) < 1
        variance = torch.zeros_like(x[:, 0])
        if contested.any():
            rate = (alpha / sigma)[contested, 0].square()
            variance[contested] = rate * self._variance(shares[contested])
        return variance

    def _variance(self, shares: Tensor) -> Tensor:
        """tr Cov[x0] under `shares` (n, N), (n,).

        The likeliest few images enter as squared differences, the others by their moments about the mean: where those
        would cancel, at high log-SNR, the others' shares vanish.
        """
        few, which = torch.topk(shares, min(_FEW, len(self.images)), dim=1)
        near = self.images[which] - self.centre
        rest = shares.scatter(1, which, 0)
        others = self._mean(rest)
        mean = (few[..., None] * near).sum(1) + others
        within = (few * (near - mean[:, None]).square().sum(2)).sum(1)
        beyond = (rest * (self.squares + mean.square().sum(1, keepdim=True))).sum(1) - 2 * (others * mean).sum(1)
        return within + beyond.clamp(min=0)

    def exact_mmse(self, alpha: Tensor, sigma: Tensor) -> float | None:
        count, dimension = self.images.shape
        if dimension > 2:
            return 0.0 if count == 1 else None
        weights = torch.full((count,), 1 / count, dtype=torch.float64, device=self.device)
        points = self.images.double().reshape(count, *self.shape)
        return Mixture(weights, points, points.new_zeros(count, dimension, dimension)).exact_mmse(alpha, sigma)

    def _sample_x0(self, u: Tensor, z: Tensor) -> Tensor:
        return self.images[(u * len(self.images)).long().clamp(max=len(self.images) - 1)].double()

    @property
    def _cost(self) -> int:
        return 2 * self.images.numel()
