"""From images to feature vectors: what every extractor has in common."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from diffexp.data import Data
from diffexp.data.pixels import Pixels
from diffexp.metrics.cached import fingerprint, source_fingerprint
from diffexp.shapes import Images

FeatureVectors: TypeAlias = Float[Tensor, "batch dimension"]


class Features(ABC):
    """A fixed map from images to vectors.

    Not an nn.Module, so that a training module that holds it does not train, average or save it.

    Attributes:
        name: The features' part of a metric's name, such as "classifier".
        frechet_name: What a Frechet distance on these features may be called, "fd" or "fid".
        dimension: Length of a feature vector.
        fingerprint: sha256 of all that the features depend on, weights included.
    """

    batch = 500

    def __init__(self, name: str, frechet_name: Literal["fd", "fid"], dimension: int, made_of: str) -> None:
        self.name, self.frechet_name, self.dimension = name, frechet_name, dimension
        self.fingerprint = fingerprint(name, made_of, source_fingerprint(__file__))

    def __call__(self, images: Images | Pixels) -> FeatureVectors:
        """The images' features, in their order, float32 on the CPU; 8-bit or in [-1, 1], on any device."""
        # a trainer may call this inside its own autocast, which would round the features to bfloat16
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            parts = torch.split(images, self.batch)
            return torch.cat([self._extract(part).float().cpu() for part in parts])

    @abstractmethod
    def _extract(self, images: Images | Pixels) -> FeatureVectors:
        """The features of one batch, without gradient, in evaluation mode."""


class FeatureRecipe(ABC):
    """How to get an extractor for a data set: what a metric's configuration names."""

    def validate(self, data: Data) -> None:  # noqa: B027  (optional)
        """Raise what `build` would, as far as this is cheap to check.

        Raises:
            ValueError, FileNotFoundError: The features cannot be computed for these data.
        """

    @abstractmethod
    def build(self, data: Data, cache: Path, device: torch.device) -> Features:
        """The extractor on `device`, trained or loaded.

        Raises:
            ValueError: The features cannot be computed for these data.
        """
