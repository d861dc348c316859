"""One Gaussian: the only data for which every optimal denoiser is linear."""

from dataclasses import dataclass

import torch

from diffexp.data.base import Source
from diffexp.data.mixture import MixtureData
from diffexp.errors import UserError


@dataclass(frozen=True)
class SmoothGaussian(Source):
    """Grey images of mean zero whose pixels covary as std^2 exp(-distance / length).

    Attributes:
        side: Height and width in pixels.
        std: Standard deviation of a pixel, on the scale [-1, 1].
        length: Distance in pixels over which the correlation falls to 1/e.
    """

    side: int = 8
    std: float = 0.5
    length: float = 2.0

    def load(self) -> MixtureData:
        for name in ("side", "std", "length"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"data.{name}={getattr(self, name)} must be positive: take {getattr(type(self), name)}."
                )
        axis = torch.arange(self.side, dtype=torch.float64)
        pixels = torch.cartesian_prod(axis, axis)
        covariance = self.std**2 * torch.exp(-torch.cdist(pixels, pixels) / self.length)
        return MixtureData(
            "gaussian",
            torch.ones(1, dtype=torch.float64),
            torch.zeros(1, 1, self.side, self.side, dtype=torch.float64),
            covariance[None],
        )
