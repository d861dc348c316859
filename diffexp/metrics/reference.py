"""What samples are compared with: statistics of the training set, and how far real images lie from them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from diffexp.data import Data
from diffexp.metrics import distance
from diffexp.metrics.cached import Tensors, cache_file, cached, fingerprint, source_fingerprint
from diffexp.metrics.features import Features, FeatureVectors

KID_FEATURES = 10_000


@dataclass(frozen=True)
class Reference:
    """Statistics of the whole training set, never augmented.

    Attributes:
        moments: Of all training images.
        features: Of 10,000 of them, or all if they are fewer, for KID.
    """

    moments: distance.Moments
    features: FeatureVectors


@dataclass(frozen=True)
class Floor:
    """The distance of held-out images from the training set: what perfect samples would score.

    Attributes:
        frechet: Frechet distance.
        kid: KID.
        count: Number of held-out images: the metric's count, or all there are if they are fewer; then
            `frechet` lies above what perfect samples of the metric's count would score.
    """

    frechet: float
    kid: float
    count: int


def reference(features: Features, data: Data, cache: Path) -> Reference:
    """The training set's statistics, computed once per data set and features."""
    wanted = _fingerprint("train", data.size("train"), features, data)
    path = cache_file(cache, "reference", f"{data.name}-{features.name}", wanted)
    tensors = cached(path, wanted, lambda: _statistics(features, data))
    moments = distance.Moments(tensors["total"], tensors["outer"], int(tensors["count"]))
    return Reference(moments, tensors["features"])


def floor(features: Features, data: Data, count: int, against: Reference, cache: Path) -> Floor:
    """The distance of `count` held-out images (or all, if they are fewer) from the training set."""
    count = min(count, data.size("heldout"))
    wanted = _fingerprint("heldout", count, features, data)
    path = cache_file(cache, "reference", f"{data.name}-{features.name}-floor", wanted)
    tensors = cached(path, wanted, lambda: _floor(features, data, count, against))
    return Floor(float(tensors["frechet"]), float(tensors["kid"]), count)


def _fingerprint(split: str, count: int, features: Features, data: Data) -> str:
    code = source_fingerprint(__file__, distance.__file__)
    return fingerprint("reference", data.fingerprint(), split, count, features.fingerprint, code)


def _statistics(features: Features, data: Data) -> Tensors:
    print(f"{features.name} features of {data.size('train')} {data.name} training images ...", flush=True)
    found = features(data.reference("train"))
    moments = distance.moments(found)
    return {
        "total": moments.total,
        "outer": moments.outer,
        "count": torch.tensor(moments.count),
        "features": found[:KID_FEATURES],
    }


def _floor(features: Features, data: Data, count: int, against: Reference) -> Tensors:
    found = features(data.reference("heldout", count))
    return {
        "frechet": torch.tensor(distance.frechet(against.moments, found), dtype=torch.float64),
        "kid": torch.tensor(distance.kid(against.features, found), dtype=torch.float64),
    }
