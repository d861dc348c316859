"""A set of 8-bit images held whole in memory."""

import copy
import functools
import hashlib
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from diffexp.data.base import SPLITS, Data, Labels, Split
from diffexp.data.pixels import Pixels, to_float
from diffexp.draws import Draws
from diffexp.shapes import Images


@final
class ImageData(Data):
    """Images as one uint8 tensor for training and one held out; on the GPU if moved there.

    Attributes:
        train: uint8 (count, channel, height, width).
        heldout_images: uint8, of the same image shape.
        train_labels: int64 (count,), or None.
        heldout_labels: int64, or None; both are given or neither.
        flip: Each image of a training batch is mirrored left to right with probability 1/2.
    """

    quantized = True

    def __init__(
        self,
        name: str,
        train: UInt8[Tensor, "train channel height width"],
        heldout: UInt8[Tensor, "heldout channel height width"],
        train_labels: Int64[Tensor, " train"] | None = None,
        heldout_labels: Int64[Tensor, " heldout"] | None = None,
        flip: bool = False,
    ) -> None:
        assert train.shape[1:] == heldout.shape[1:]
        assert len(train) > 0
        assert len(heldout) > 0
        assert (train_labels is None) == (heldout_labels is None)
        self.name, self.flip = name, flip
        self.train, self.heldout_images = train, heldout
        self.train_labels, self.heldout_labels = train_labels, heldout_labels
        channels, height, width = train.shape[1:]
        self.image_shape = (channels, height, width)
        self.std = _std(train)
        self.classes = None
        if train_labels is not None and heldout_labels is not None:
            self.classes = 1 + max(int(train_labels.max()), int(heldout_labels.max()))
        self._order: dict[Split, Tensor] = {split: fixed_order(self.size(split)).to(train.device) for split in SPLITS}

    @property
    def device(self) -> torch.device:
        return self.train.device

    def to(self, device: torch.device | str) -> "ImageData":
        if self.train.device == torch.device(device):
            return self
        moved = copy.copy(self)
        moved.train, moved.heldout_images = self.train.to(device), self.heldout_images.to(device)
        if self.train_labels is not None and self.heldout_labels is not None:
            moved.train_labels = self.train_labels.to(device)
            moved.heldout_labels = self.heldout_labels.to(device)
        moved._order = {split: order.to(device) for split, order in self._order.items()}
        return moved

    def batch(self, draws: Draws, step: int, size: int) -> Images:
        chosen = draws.choose(size, len(self.train), step, "images").to(self.device)
        images = to_float(self.train[chosen])
        if self.flip:
            flips = (draws.uniform(size, step, "flips") < 0.5).to(self.device)
            images = flipped_where(flips, images)
        return images

    def heldout(self, count: int) -> Images:
        order = self._order["heldout"]
        return to_float(self.heldout_images[order[torch.arange(count, device=self.device) % len(order)]])

    def size(self, split: Split) -> int:
        return len(self.train if split == "train" else self.heldout_images)

    def reference(self, split: Split, count: int | None = None) -> Images | Pixels:
        images = self.train if split == "train" else self.heldout_images
        return images[self._order[split][:count]]

    def labels(self, split: Split, count: int | None = None) -> Labels | None:
        labels = self.train_labels if split == "train" else self.heldout_labels
        return None if labels is None else labels[self._order[split][:count]]

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        content = hashlib.sha256(f"images flip={self.flip}".encode())
        for part in (self.train, self.heldout_images, self.train_labels, self.heldout_labels):
            content.update(f"|{None if part is None else tuple(part.shape)}|".encode())
            if part is not None:
                content.update(np.ascontiguousarray(part.cpu().numpy()).data)
        return content.hexdigest()


def flipped_where(flips: Bool[Tensor, " batch"], images: Images) -> Images:
    """`images`, mirrored left to right where `flips` is true."""
    return torch.where(flips.reshape(-1, 1, 1, 1), images.flip(-1), images)


def fixed_order(count: int) -> Tensor:
    """An order of 0 to count - 1 that depends on `count` alone, int64."""
    return Draws(seed=0).choose(count, count, step=0, purpose="data/order")


def _std(pixels: Pixels) -> float:
    # From counts of the 256 values: exact, and without a float copy of the set.
    counts = torch.bincount(pixels.reshape(-1), minlength=256).double().cpu()
    weight = counts / counts.sum()
    value = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0
    mean = (weight * value).sum()
    return float((weight * (value - mean).square()).sum().sqrt())
