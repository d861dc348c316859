"""Metrics of samples: what conf/metric names.

A metric's name contains its features and count: `fd/classifier_1k` is the Frechet distance of 1000 samples from the
training set on the classifier's features, `fid/inception_50k` the published FID.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

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
    """A metric of samples."""

    def validate(self, data: Data) -> None:  # noqa: B027  (optional)
        """Raise what `prepare` would raise, as far as it can be found out at once."""

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
    """Frechet distance and KID of samples from the training set, on one kind of features or on several.

    Each sample is drawn once, whatever is measured on it.

    Attributes:
        features: What the images are compared by: one recipe, or several by name.
        count: Number of samples: one number for all features, or one for each by its name. Features of a smaller
            count are measured on the first samples.
        batch: Samples drawn at once.
        cache: The folder for what is computed once; see `diffexp.io.files.cache_folder`.
        also: Other metrics by name, measured on the same samples.

    Raises:
        UserError: A count is missing, too small or of no features, or an entry is neither a recipe nor a metric.
    """

    features: FeatureRecipe | Mapping[str, FeatureRecipe] | None = None
    count: int | Mapping[str, int] | None = None
    batch: int = 500
    cache: str | None = None
    also: Mapping[str, Metric] | None = None

    def __post_init__(self) -> None:
        _require_recipes(self.recipes)
        key = "metric.count.{}" if isinstance(self.count, Mapping) else "metric.count"
        _require_counts(self.counts, self.recipes, key)
        if not isinstance(cast(object, self.batch), int) or self.batch < 1:
            raise UserError(f"metric.batch={self.batch}: must be the number of samples drawn at once. Try 500.")
        for name, metric in cast(Mapping[str, object], self.also or {}).items():
            if not isinstance(metric, Metric):
                raise UserError(f"metric.also.{name}={metric}: must be a metric. Give metric.also.{name}._target_=.")

    @property
    def recipes(self) -> Mapping[str, FeatureRecipe]:
        """The features by name, "" for the only ones."""
        return {"": self.features} if isinstance(self.features, FeatureRecipe) else self.features or {}

    @property
    def counts(self) -> Mapping[str, int | None]:
        """The number of samples of each of the features."""
        return self.count if isinstance(self.count, Mapping) else dict.fromkeys(self.recipes, self.count)

    def validate(self, data: Data) -> None:
        """Require 2 images or more of each split, and features that can be computed (see the recipes).

        Raises:
            UserError: A split has fewer than 2 images.
            ValueError, FileNotFoundError, ImportError: The features cannot be computed.
        """
        few = [f"{data.size(split)} {split}" for split in SPLITS if data.size(split) < 2]
        if few and self.recipes:
            raise UserError(
                f"data={data.name} has {' and '.join(few)} image(s): a covariance takes 2 or more of each "
                "split. Take more data, or metric=none."
            )
        for recipe in self.recipes.values():
            recipe.validate(data)
        for metric in (self.also or {}).values():
            metric.validate(data)

    def prepare(self, data: Data, device: torch.device) -> PreparedMetric:
        """Train or load the features and compute the training set's statistics, or find them in the cache.

        Raises:
            UserError: As in `validate`, or two features give metrics of one name.
        """
        self.validate(data)
        prepared: dict[str, PreparedSampleMetric] = {}
        for name, recipe in self.recipes.items():
            each = self._prepare_one(recipe, cast(int, self.counts[name]), data, device)
            if each.name in prepared:
                raise UserError(
                    f"metric.features.{name}: two of the features measure {each.name}. Leave one of them out, or "
                    f"take another metric.count.{name}."
                )
            prepared[each.name] = each
            print(each.summary(), flush=True)
        also = [metric.prepare(data, device) for metric in (self.also or {}).values()]
        if len(prepared) == 1 and not also:
            return next(iter(prepared.values()))
        return PreparedTogether(tuple(prepared.values()), tuple(also), self.batch)

    def _prepare_one(
        self, recipe: FeatureRecipe, count: int, data: Data, device: torch.device
    ) -> "PreparedSampleMetric":
        cache = cache_folder(self.cache)
        features = recipe.build(data, cache, device)
        against = reference(features, data, cache)
        return PreparedSampleMetric(
            data, features, against, floor(features, data, count, against, cache), count, self.batch
        )


def _require_recipes(features: Mapping[str, object]) -> None:
    names = [name for name, recipe in features.items() if isinstance(recipe, FeatureRecipe)]
    for name, value in features.items():
        if name not in names:
            raise UserError(
                f"metric.features.{name}={value}: features are named, and a setting belongs to one of them. "
                f"Write metric.features.NAME.{name}={value}, with NAME one of {', '.join(names) or 'your own'}."
            )


def _require_counts(counts: Mapping[str, object], features: Collection[str], key: str) -> None:
    for name in counts:
        if name not in features:
            raise UserError(
                f"{key.format(name)}={counts[name]}: there are no features {name}. "
                f"Features: {', '.join(features) or 'none'}."
            )
    for name in features:
        count = counts.get(name)
        if not isinstance(count, int) or isinstance(count, bool) or count < 2:
            shown = "null" if count is None else count
            raise UserError(f"{key.format(name)}={shown}: a covariance takes 2 samples or more. Try 1000.")


@dataclass(frozen=True)
class PreparedSampleMetric:
    """A metric with its features, reference and floor at hand; a call draws samples and measures them."""

    data: Data
    features: Features
    reference: Reference
    floor: Floor
    count: int
    batch: int

    @property
    def name(self) -> str:
        """The name of its Frechet distance, such as fd/classifier_1k."""
        return self._name(self.features.frechet_name)

    def summary(self) -> str:
        """What is compared with what, and the floor, in one line."""
        return (
            f"{self.name}: {self.count} samples against "
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
        (found,) = features_of([self], generate, self.batch)
        return self.values(found)

    def values(self, found: FeatureVectors | None) -> dict[str, float]:
        """As the call gives them, from the samples' features; None if a sample is not finite."""
        frechet, kid = self.name, self._name("kid")
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

    def extract(self, first: int, images: Images) -> FeatureVectors | None:
        """The features of the samples from number `first` on; None, with a warning, if one is not finite."""
        assert images.shape[1:] == self.data.image_shape, images.shape
        found = self.features(to_uint8(images) if self.data.quantized else images)
        finite = images.isfinite().flatten(1).all(1).cpu() & found.isfinite().all(1)
        if broken := len(images) - int(finite.sum()):
            warnings.warn(
                f"{broken} of the {len(images)} samples from number {first} on are not finite: "
                f"{self.name} is not a number.",
                stacklevel=4,
            )
            return None
        return found


@dataclass(frozen=True)
class PreparedTogether:
    """Several metrics at hand; a call draws each sample once and measures all of them."""

    metrics: Sequence[PreparedSampleMetric]
    also: Sequence[PreparedMetric]
    batch: int

    def __call__(self, generate: Generate) -> dict[str, float]:
        drawn = DrawnOnce(generate) if self.also else generate
        values: dict[str, float] = {}
        for metric, found in zip(self.metrics, features_of(self.metrics, drawn, self.batch), strict=True):
            values |= metric.values(found)
        for metric in self.also:
            values |= metric(drawn)
        return values


class DrawnOnce:
    """`generate` for several metrics: a sample is drawn at its first use and kept on the CPU."""

    def __init__(self, generate: Generate) -> None:
        self._generate = generate
        self._blocks: list[tuple[int, Images]] = []
        self._drawn = 0

    def __call__(self, first: int, count: int) -> Images:
        end = first + count
        if end > self._drawn:
            new = self._generate(self._drawn, end - self._drawn)
            self._blocks.append((self._drawn, new.cpu()))
            self._device, self._drawn = new.device, end
        overlapping = [(start, block) for start, block in self._blocks if start < end and start + len(block) > first]
        parts = [block[max(first - start, 0) : end - start] for start, block in overlapping]
        return torch.cat(parts).to(self._device)


def features_of(metrics: Sequence[PreparedSampleMetric], generate: Generate, batch: int) -> list[FeatureVectors | None]:
    """Each metric's features of the first samples, as many as it takes; None where a sample is not finite."""
    parts: list[list[FeatureVectors]] = [[] for _ in metrics]
    whole = [True for _ in metrics]
    most = max((metric.count for metric in metrics), default=0)
    for first in range(0, most, batch):
        wanted = [place for place, metric in enumerate(metrics) if whole[place] and metric.count > first]
        if not wanted:
            break
        size = min(batch, max(metrics[place].count for place in wanted) - first)
        images = generate(first, size)
        assert len(images) == size, images.shape
        for place in wanted:
            found = metrics[place].extract(first, images[: metrics[place].count - first])
            if found is None:
                whole[place] = False
            else:
                parts[place].append(found)
    return [torch.cat(found) if fine else None for found, fine in zip(parts, whole, strict=True)]
