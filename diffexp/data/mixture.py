"""Synthetic images from a Gaussian mixture of known density, drawn anew at every step."""

import copy
import hashlib
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffexp.data.base import SPLITS, Data, Labels, Split
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.shapes import Images

SIZES: dict[Split, int] = {"train": 50_000, "heldout": 10_000}
"""How many fixed images stand for each split where metrics need a set."""

BLOCK = 1000
"""Fixed images are drawn in blocks, each from a stream of its own: a prefix does not depend on the count."""


@final
class MixtureData(Data):
    """x0 = means[k] + covariances[k]^(1/2) z with k drawn by `weights` and z ~ N(0, I), never quantised.

    The symmetric square root is taken because it is unique, so that numbers do not depend on which
    eigenvectors a machine's library returns; a covariance may be degenerate. The component is the label.

    Attributes:
        weights: float64 (K,), sum 1.
        means: float64 (K, C, H, W), on the scale [-1, 1] (draws may leave it).
        covariances: float64 (K, D, D) over the C-order flattening, D = C H W.

    Raises:
        UserError: The parameters are not those of a mixture of Gaussians.
    """

    quantized = False

    def __init__(
        self,
        name: str,
        weights: Float[Tensor, " K"],
        means: Float[Tensor, "K C H W"],
        covariances: Float[Tensor, "K D D"],
    ) -> None:
        self.name = name
        self.weights, self.means, self.covariances = weights.double(), means.double(), covariances.double()
        channels, height, width = means.shape[1:]
        self.image_shape = (channels, height, width)
        self.classes = len(weights)
        dimension = channels * height * width
        if covariances.shape[-1] != dimension or len(means) != len(weights):
            raise UserError(
                f"data={name}: {len(weights)} weights, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)} do not belong together. "
                "Give (K,), (K, C, H, W) and (K, D, D) with D = C H W."
            )
        if bool((self.weights < 0).any()) or abs(float(self.weights.sum()) - 1) > 1e-9:
            raise UserError(
                f"data={name}: the weights {[float(w) for w in weights]} are not probabilities. "
                "Divide them by their sum; none may be negative."
            )
        self.std = self._exact_std()
        self._roots = torch.cat([self._root(k) for k in range(self.classes)], dim=1)
        self._cumulative = self.weights.cumsum(0)

    @property
    def device(self) -> torch.device:
        return self.means.device

    def to(self, device: torch.device | str) -> "MixtureData":
        if self.device == torch.device(device):
            return self
        moved = copy.copy(self)
        for key, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, key, value.to(device))
        return moved

    def batch(self, draws: Draws, step: int, size: int) -> Images:
        return self._draw(draws, step, size, "images")[0]

    def heldout(self, count: int) -> Images:
        images = self.reference("heldout", count)
        return images[torch.arange(count, device=self.device) % len(images)]

    def size(self, split: Split) -> int:
        return SIZES[split]

    def reference(self, split: Split, count: int | None = None) -> Images:
        return self._fixed(split, count)[0]

    def labels(self, split: Split, count: int | None = None) -> Labels:
        return self._fixed(split, count)[1]

    def fingerprint(self) -> str:
        content = hashlib.sha256(f"mixture {self.image_shape} {SIZES} {BLOCK}".encode())
        for part in (self.weights, self.means, self.covariances):
            content.update(np.ascontiguousarray(part.cpu().numpy()).data)
        return content.hexdigest()

    def _fixed(self, split: Split, count: int | None) -> tuple[Images, Labels]:
        assert split in SPLITS
        wanted = SIZES[split] if count is None else min(count, SIZES[split])
        # On the CPU whatever the device, so that the fixed images are the same everywhere.
        here, draws = self.to("cpu"), Draws(seed=0)
        blocks = range(-(-wanted // BLOCK))
        parts = [here._draw(draws, block, BLOCK, f"data/{split}") for block in blocks]
        images, labels = (torch.cat(list(part))[:wanted].to(self.device) for part in zip(*parts, strict=True))
        return images, labels

    def _draw(self, draws: Draws, step: int, size: int, purpose: str) -> tuple[Images, Labels]:
        uniform = draws.uniform(size, step, f"{purpose}/component").to(self.device)
        component = torch.searchsorted(self._cumulative, uniform, right=True).clamp(max=len(self.weights) - 1)
        noise = draws.normal((size, *self.image_shape), step, f"{purpose}/noise").to(self.device)
        # Every component's image of every noise, then the one drawn: more work than gathering roots, but no
        # (size, D, D) tensor and nothing that waits for the device. In float64, so that neither autocast
        # nor TF32 can perturb data whose density is known.
        every = (noise.flatten(1).double() @ self._roots).reshape(size, len(self.weights), -1)
        chosen = every[torch.arange(size, device=self.device), component]
        images = chosen.reshape(size, *self.image_shape) + self.means[component]
        return images.float(), component

    def _exact_std(self) -> float:
        means = self.means.flatten(1)
        second = self.weights @ (self.covariances.diagonal(dim1=1, dim2=2) + means.square())
        return float((second.mean() - (self.weights @ means).mean().square()).sqrt())

    def _root(self, k: int) -> Float64[Tensor, "D D"]:
        covariance = self.covariances[k].cpu().numpy()
        values, vectors = np.linalg.eigh(covariance)
        scale = max(float(np.abs(values).max()), 1e-300)
        if np.abs(covariance - covariance.T).max() > 1e-12 * scale or values.min() < -1e-9 * scale:
            raise UserError(
                f"data={self.name}: covariance {k} is not symmetric with eigenvalues >= 0 (smallest "
                f"{float(values.min()):.3g}). Make it J^T J, or add a multiple of the identity."
            )
        return torch.as_tensor((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)
