"""Features of a small network that has learned the data set's own labels.

Inception's features are uninformative about handwritten digits of 8 x 8 pixels; those of a network that
classifies these digits are not. Trained once per data set, from fixed seeds; numbers on different data sets, and on
networks trained on different kinds of device, are not comparable: the weights are part of the fingerprint.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from diffexp.data import Data, Split
from diffexp.data.pixels import Pixels, as_float
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.metrics.cached import Tensors, cache_file, cached, content_fingerprint, fingerprint, source_fingerprint
from diffexp.metrics.determinism import deterministic_algorithms, fixed_draws
from diffexp.metrics.features import FeatureRecipe, Features, FeatureVectors
from diffexp.shapes import Images

FLOAT = torch.float32  # named, so that the weights do not depend on the default that a program has set
BATCH, LEARNING_RATE, WEIGHT_DECAY = 128, 2e-3, 1e-2


class ClassifierNetwork(nn.Module):
    """Strided convolutions, a mean over the image, the features, and a linear read-out of the classes.

    Batch normalisation is an affine map in evaluation; a normalisation per image would make the features
    blind to wrong contrast.
    """

    def __init__(self, channels: int, side: int, dimension: int, classes: int) -> None:
        super().__init__()
        halvings = max(2, math.ceil(math.log2(side / 8)))
        widths = [32, 64] + [128] * (halvings - 1)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2 if i else 1, padding=1, bias=False, dtype=FLOAT),
                nn.BatchNorm2d(after, dtype=FLOAT),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.to_features = nn.Linear(widths[-1], dimension, dtype=FLOAT)
        self.to_classes = nn.Linear(dimension, classes, dtype=FLOAT)

    def features(self, images: Images) -> FeatureVectors:
        """The last layer before the classes, before its ReLU: nearer to Gaussian than after it."""
        return self.to_features(self.trunk(images).mean((-2, -1)))

    def forward(self, images: Images) -> Tensor:
        """Logits, (batch, classes)."""
        return self.to_classes(self.features(images).relu())


class ClassifierFeatures(Features):
    """The features of a trained `ClassifierNetwork`.

    Attributes:
        heldout_accuracy: Accuracy on the held-out images.
    """

    def __init__(self, network: ClassifierNetwork, heldout_accuracy: float, device: torch.device) -> None:
        made_of = fingerprint(content_fingerprint(network.state_dict()), source_fingerprint(__file__))
        super().__init__("classifier", "fd", network.to_features.out_features, made_of)
        self.heldout_accuracy = heldout_accuracy
        self._network, self._device = network.eval().requires_grad_(False).to(device), device

    def _extract(self, images: Images | Pixels) -> FeatureVectors:
        return self._network.features(as_float(images.to(self._device)))


@dataclass(frozen=True)
class TrainedClassifier(FeatureRecipe):
    """Train a network on the data set's labels, or take the one that was trained before.

    Attributes:
        dimension: Number of features.
        epochs: Passes over the training images; small sets are trained on for `min_steps` steps at least.
        min_steps: See `epochs`.
    """

    dimension: int = 64
    epochs: int = 5
    min_steps: int = 200

    def validate(self, data: Data) -> None:
        """Raise ValueError for a data set without labels, or of one class only."""
        classes = data.classes
        if classes is None or data.labels("train") is None or data.labels("heldout") is None:
            raise UserError(
                f"metric=classifier on data={data.name}: its features are those of a network trained on the "
                f"data set's labels, and {data.name} has none. Take metric=inception or metric=none."
            )
        if classes < 2:
            raise UserError(
                f"metric=classifier on data={data.name}: a network learns nothing from labels that are all "
                "the same. Take metric=inception or metric=none."
            )

    def build(self, data: Data, cache: Path, device: torch.device) -> ClassifierFeatures:
        """The trained network's features; see `FeatureRecipe`.

        Raises:
            UserError: The data set has no labels, or one class only.
        """
        self.validate(data)
        classes = cast(int, data.classes)
        wanted = fingerprint("classifier", data.fingerprint(), self, source_fingerprint(__file__))
        path = cache_file(cache, "classifier", data.name, wanted)
        tensors = cached(path, wanted, lambda: self._train(data, classes, device))
        network = self._network(data, classes)
        accuracy = float(tensors.pop("heldout_accuracy"))
        network.load_state_dict(tensors)
        return ClassifierFeatures(network, accuracy, device)

    def _network(self, data: Data, classes: int) -> ClassifierNetwork:
        channels, height, width = data.image_shape
        with fixed_draws():
            return ClassifierNetwork(channels, min(height, width), self.dimension, classes)

    def _train(self, data: Data, classes: int, device: torch.device) -> Tensors:
        images, labels = _labelled(data, "train", device)
        size = len(images)
        steps = max(self.min_steps, self.epochs * math.ceil(size / BATCH))
        print(f"training the {data.name} classifier on {size} images, {steps} steps ...", flush=True)
        start = time.perf_counter()
        draws = Draws(seed=0)
        with deterministic_algorithms(device):
            network = self._network(data, classes).to(device)
            optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
            for step in range(steps):
                chosen = draws.choose(min(BATCH, size), size, step, "classifier").to(device)
                loss = F.cross_entropy(network(as_float(images[chosen])), labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
                optimizer.step()  # pyright: ignore[reportUnknownMemberType]
                schedule.step()
        accuracy, tested = _accuracy(network.eval(), data, device)
        print(
            f"{data.name} classifier: {accuracy:.2%} of {tested} held-out images correct, "
            f"trained in {time.perf_counter() - start:.1f} s",
            flush=True,
        )
        return {**network.state_dict(), "heldout_accuracy": torch.tensor(accuracy, dtype=torch.float64)}


def _labelled(data: Data, split: Split, device: torch.device) -> tuple[Images | Pixels, Tensor]:
    labels = data.labels(split)
    assert labels is not None
    return data.reference(split).to(device), labels.to(device)


@torch.no_grad()
def _accuracy(network: ClassifierNetwork, data: Data, device: torch.device) -> tuple[float, int]:
    images, labels = _labelled(data, "heldout", device)
    predicted = torch.cat([cast(Tensor, network(as_float(part))).argmax(1) for part in torch.split(images, 500)])
    return (predicted == labels).double().mean().item(), len(labels)
