"""The interface of a data set: training and held-out images, labels, fingerprint."""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Int64
from torch import Tensor

from diffexp.data.pixels import Pixels
from diffexp.draws import Draws
from diffexp.shapes import Images

Split: TypeAlias = Literal["train", "heldout"]
Labels: TypeAlias = Int64[Tensor, " count"]
SPLITS: tuple[Split, Split] = ("train", "heldout")


class Data(ABC):
    """Training and held-out images on one device.

    Nothing here depends on a run's seed but `batch`: the split, the held-out images and the reference
    images are the same for every run. Flips belong to training, so only `batch` makes them.

    Attributes:
        name: For messages and the names of cached files.
        image_shape: (channel, height, width).
        std: Standard deviation of a training pixel about the mean of them all, on the scale [-1, 1].
        quantized: The images have 8 bits a pixel value.
        classes: Number of classes that labels count (0 to classes - 1); None without labels.
    """

    name: str
    image_shape: tuple[int, int, int]
    std: float
    quantized: bool
    classes: int | None

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the images are, and where `batch`, `heldout`, `reference` and `labels` put theirs."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Data":
        """The same data on another device."""

    @abstractmethod
    def batch(self, draws: Draws, step: int, size: int) -> Images:
        """The `size` images of training step `step`, float32 in [-1, 1]: a function of (seed, step)."""

    @abstractmethod
    def heldout(self, count: int) -> Images:
        """The first `count` of the held-out images, float32 in [-1, 1], from the start again if fewer."""

    @abstractmethod
    def size(self, split: Split) -> int:
        """How many images `reference` can give of `split`."""

    @abstractmethod
    def reference(self, split: Split, count: int | None = None) -> Images | Pixels:
        """Up to `count` fixed images of `split`, never flipped: uint8 if `quantized`, else float32.

        They come in a fixed shuffled order, so the first thousand are among the first two thousand,
        and every class has its share.
        """

    @abstractmethod
    def labels(self, split: Split, count: int | None = None) -> Labels | None:
        """The classes of `reference(split, count)`, image by image; None without labels."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides what the methods above return."""


class Source(ABC):
    """Where data comes from: cheap to construct; reading and checking happen in `load`."""

    @abstractmethod
    def load(self) -> Data:
        """Read and check the data.

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: The data cannot be used; the message gives the reason and what can.
        """
