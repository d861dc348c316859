"""The handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8 pixels."""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffexp.data.arrays import Arrays, image_data
from diffexp.data.base import Source
from diffexp.data.images import ImageData


@dataclass(frozen=True)
class Digits(Source):
    """The test set of UCI's "Optical Recognition of Handwritten Digits", bundled with scikit-learn.

    Its pixels count ink in 0 to 16; they become 8 bits once, by rounding 255 / 16 times the count. It has
    no test split here, so a fixed fifth (359 images) is held out.

    Attributes:
        flip: Mirror training images. A mirrored digit is mostly no digit, so off.
    """

    flip: bool = False

    def load(self) -> ImageData:
        bundle: Any = importlib.import_module("sklearn.datasets").load_digits()
        images = np.rint(np.asarray(bundle.images, np.float64) * (255 / 16)).astype(np.uint8)
        return image_data("digits", Arrays("data=digits", images, np.asarray(bundle.target)), self.flip)
