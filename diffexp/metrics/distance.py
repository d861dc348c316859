"""The distance between two sets of features: Frechet (Heusel et al. 2017) and KID (Binkowski et al. 2018)."""

import warnings
from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from diffexp.metrics.determinism import fixed_draws
from diffexp.metrics.features import FeatureVectors

KID_SUBSET = 1000


@dataclass(frozen=True)
class Moments:
    """All that a Frechet distance needs of a set of features.

    Attributes:
        total: Sum of the features, float64.
        outer: Sum of their outer products, float64.
        count: How many they are.
    """

    total: Float[Tensor, " dimension"]
    outer: Float[Tensor, "dimension dimension"]
    count: int


def moments(features: FeatureVectors) -> Moments:
    """The moments of a set of features, accumulated in float64."""
    metric = _frechet_metric(features.shape[1])
    for part in torch.split(features, 10_000):
        metric.update(part.double(), real=True)
    return Moments(metric.real_features_sum, metric.real_features_cov_sum, len(features))


def frechet(reference: Moments, features: FeatureVectors) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) with means m and covariances C, in float64.

    Its expectation falls as the sets grow, so only distances of equal counts compare; with a set no larger
    than the dimension, a covariance is singular and the distance is unreliable.
    """
    metric = _frechet_metric(features.shape[1])
    metric.real_features_sum, metric.real_features_cov_sum = reference.total, reference.outer
    metric.real_features_num_samples = torch.tensor(reference.count)
    for part in torch.split(features, 10_000):
        metric.update(part.double(), real=False)
    return float(metric.compute())


def kid(reference: Float[Tensor, "images dimension"], features: FeatureVectors) -> float:
    """The squared maximum mean discrepancy under (x.y / d + 1)^3, without bias, in float64.

    The mean over subsets of 1000 of each set (of the smaller set, if that is smaller), ten subsets per
    1000 features and 100 at most, which is what is published for 50,000. Always the same subsets.
    """
    size = min(KID_SUBSET, len(reference), len(features))
    subsets = min(100, 10 * -(-len(features) // KID_SUBSET))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(_GivenFeatures(features.shape[1]), subsets=subsets, subset_size=size)
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    with fixed_draws():
        return float(metric.compute()[0])


class _GivenFeatures(nn.Module):
    """The extractor of features that are already there."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features


def _frechet_metric(dimension: int) -> FrechetInceptionDistance:
    return FrechetInceptionDistance(_GivenFeatures(dimension))
