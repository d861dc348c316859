"""Judge a model by its samples: what conf/metric names.

A metric's name says what it was made of: `fd/classifier_1k` is the Frechet distance of 1000 samples from the
training set on the classifier's features, `fid/inception_50k` the published FID.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from diffexp.data import Data
from diffexp.data.base import SPLITS
from diffexp.data.pixels import to_uint8
from diffexp.errors import UserError
from diffexp.io.files import cache_folder
from diffexp.metrics import distance
from diffexp.metrics.classifier import ClassifierFeatures
from diffexp.metrics.features import FeatureRecipe, Features, FeatureVectors
from diffexp.metrics.reference import Floor, Reference, floor, reference
from diffexp.shapes import Images

Generate: TypeAlias = Callable[[int, int], Images]
"""`generate(first, count)`: samples number `first` to `first + count - 1`, in [-1, 1]."""

PreparedMetric: TypeAlias = Callable[[Generate], dict[str, float]]
"""Draws samples and returns the metrics' values under their names."""


class Metric(ABC):
    """A way to judge samples."""

    def refuse(self, data: Data) -> None:  # noqa: B027  (there may be nothing to refuse)
        """Raise what `prepare` would, as far as it can be told at once."""

    @abstractmethod
    def prepare(self, data: Data, device: torch.device) -> PreparedMetric:
        """Make all that does not depend on the model; called before training, so that it fails early."""


class NoMetric(Metric):
    """Samples are looked at, not measured."""

    def prepare(self, data: Data, device: torch.device) -> PreparedMetric:
        """A metric without entries."""
        return lambda generate: {}


@dataclass(frozen=True)
class SampleMetric(Metric):
    """Frechet distance and KID of samples from the training set.

    Attributes:
        features: What the images are compared by.
        count: Number of samples.
        batch: Samples asked for at once.
        cache: The folder for what is computed once; see `diffexp.io.files.cache_folder`.
    """

    features: FeatureRecipe
    count: int
    batch: int = 500
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.count < 2:
            raise UserError(f"metric.count={self.count}: a covariance takes 2 samples or more. Try 1000.")
        if self.batch < 1:
            raise UserError(f"metric.batch={self.batch}: samples are drawn some at a time. Try 500.")

    def refuse(self, data: Data) -> None:
        """Refuse a split of fewer than 2 images, and features that cannot be had (see the recipes)."""
        if few := [f"{data.size(split)} {split}" for split in SPLITS if data.size(split) < 2]:
            raise UserError(
                f"data={data.name} has {' and '.join(few)} image(s): a covariance takes 2 or more of each "
                "split. Take more data, or metric=none."
            )
        self.features.refuse(data)

    def prepare(self, data: Data, device: torch.device) -> "PreparedSampleMetric":
        """Train or load the features and the training set's statistics, or find them in the cache.

        Raises:
            UserError: The features cannot be had (see the recipes), or a
                split has fewer than 2 images.
        """
        self.refuse(data)
        cache = cache_folder(self.cache)
        features = self.features.build(data, cache, device)
        against = reference(features, data, cache)
        lowest = floor(features, data, self.count, against, cache)
        prepared = PreparedSampleMetric(data, features, against, lowest, self.count, self.batch)
        print(prepared.summary(), flush=True)
        return prepared


@dataclass(frozen=True)
class PreparedSampleMetric:
    """A metric with its features, reference and floor at hand; a call draws samples and judges them."""

    data: Data
    features: Features
    reference: Reference
    floor: Floor
    count: int
    batch: int

    def summary(self) -> str:
        """What is compared with what, and the floor, in one line."""
        return (
            f"{self._name(self.features.frechet_name)}: {self.count} samples against "
            f"{self.reference.moments.count} {self.data.name} training images; "
            f"floor {self.floor.frechet:.4g}, KID {self.floor.kid:.3g} ({self.floor.count} held-out images)"
        )

    def __call__(self, generate: Generate) -> dict[str, float]:
        """Draw `count` samples and return the distances, their floors and what limits them.

        Besides `NAME` and `NAME/floor` there are `NAME/floor_count` where the held-out images are fewer than
        the samples (the floor is then too high), and `NAME/unreliable` or `NAME/floor/unreliable`, 1.0, where
        the images are no more than the features' dimensions; for a classifier's features `NAME/accuracy`, its share
        of held-out images named rightly, and `NAME/chance`, that of guessing. If a sample is not finite
        the distances are NaN.
        """
        frechet, kid = self._name(self.features.frechet_name), self._name("kid")
        found = self._features_of(generate)
        values = {
            frechet: math.nan if found is None else distance.frechet(self.reference.moments, found),
            f"{frechet}/floor": self.floor.frechet,
            kid: math.nan if found is None else distance.kid(self.reference.features, found),
            f"{kid}/floor": self.floor.kid,
        }
        if self.floor.count < self.count:
            values |= {f"{name}/floor_count": float(self.floor.count) for name in (frechet, kid)}
        if isinstance(self.features, ClassifierFeatures) and self.data.classes:
            values |= {
                f"{frechet}/accuracy": self.features.heldout_accuracy,
                f"{frechet}/chance": 1 / self.data.classes,
            }
        for key, count in ((frechet, self.count), (f"{frechet}/floor", self.floor.count)):
            count, dimension = min(count, self.reference.moments.count), self.features.dimension
            if count <= dimension:
                values[f"{key}/unreliable"] = 1.0
                warnings.warn(
                    f"{key} is unreliable: {count} images do not give a covariance of {dimension} features. "
                    f"Take more than {dimension} images, or trust {kid} alone.",
                    stacklevel=2,
                )
        return values

    def _name(self, distance_name: str) -> str:
        count = f"{self.count // 1000}k" if self.count % 1000 == 0 else str(self.count)
        return f"{distance_name}/{self.features.name}_{count}"

    def _features_of(self, generate: Generate) -> FeatureVectors | None:
        """The samples' features; None as soon as a sample is not finite."""
        parts: list[FeatureVectors] = []
        for first in range(0, self.count, self.batch):
            size = min(self.batch, self.count - first)
            images = generate(first, size)
            assert images.shape == (size, *self.data.image_shape), images.shape
            found = self.features(to_uint8(images) if self.data.quantized else images)
            finite = images.isfinite().flatten(1).all(1).cpu() & found.isfinite().all(1)
            if broken := size - int(finite.sum()):
                warnings.warn(
                    f"{broken} of the {size} samples from number {first} on are not finite: "
                    f"{self._name(self.features.frechet_name)} is not a number.",
                    stacklevel=3,
                )
                return None
            parts.append(found)
        return torch.cat(parts)
