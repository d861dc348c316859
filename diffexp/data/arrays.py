"""From arrays as they were read to checked data: size, type, range, labels, and the held-out split."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffexp.data.images import ImageData, fixed_order
from diffexp.errors import UserError

Array: TypeAlias = npt.NDArray[Any]

HELD_OUT = 5
"""One image in this many is held out where the data has no test split of its own."""


@dataclass(frozen=True)
class Arrays:
    """Images and labels as a file gave them, not yet checked.

    Attributes:
        origin: What was read, for messages.
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8.
        labels: (N,) integers from 0, or None.
        images_test: The official test split, or None.
        labels_test: Its labels; given exactly if `labels` and `images_test` are.
    """

    origin: str
    images: Array
    labels: Array | None = None
    images_test: Array | None = None
    labels_test: Array | None = None


def image_data(name: str, arrays: Arrays, flip: bool = False) -> ImageData:
    """Checked data from `arrays`, held out by the test split if there is one, else a fixed fifth.

    Raises:
        UserError: The arrays are not 8-bit images of one size with matching labels.
    """
    origin = arrays.origin
    train = _pixels(arrays.images, f"{origin}: images")
    labels = _labels(arrays.labels, len(train), f"{origin}: labels")
    if arrays.images_test is None:
        if arrays.labels_test is not None:
            raise UserError(f"{origin}: has test labels but no test images. Add them, or drop the labels.")
        return _hold_out(name, origin, train, labels, flip)
    test = _pixels(arrays.images_test, f"{origin}: test images")
    if test.shape[1:] != train.shape[1:]:
        raise UserError(
            f"{origin}: training images are {_size(train)} but test images are {_size(test)} "
            "(channels x height x width). Both splits must be of one size: take them from one data set."
        )
    labels_test = _labels(arrays.labels_test, len(test), f"{origin}: test labels")
    if (labels is None) != (labels_test is None):
        have, lack = ("test", "training") if labels is None else ("training", "test")
        raise UserError(f"{origin}: the {have} images have labels, the {lack} images have none. Label both.")
    _check_classes(origin, labels, labels_test)
    return ImageData(name, train, test, labels, labels_test, flip)


def _hold_out(name: str, origin: str, images: Tensor, labels: Tensor | None, flip: bool) -> ImageData:
    if len(images) < HELD_OUT:
        raise UserError(
            f"{origin}: {len(images)} image(s) are too few to hold one in {HELD_OUT} out for validation. "
            f"Give at least {HELD_OUT}, or a test split."
        )
    _check_classes(origin, labels, None)
    order = fixed_order(len(images))
    held, kept = order[: len(images) // HELD_OUT], order[len(images) // HELD_OUT :]
    if labels is None:
        return ImageData(name, images[kept], images[held], flip=flip)
    return ImageData(name, images[kept], images[held], labels[kept], labels[held], flip)


def _pixels(images: Array, what: str) -> Tensor:
    if images.dtype != np.uint8:
        raise UserError(f"{what} are {images.dtype}, {_conversion(images)}")
    if images.ndim not in (3, 4):
        raise UserError(f"{what} have shape {images.shape}; give (N, height, width) or (N, height, width, channels).")
    if 0 in images.shape:
        raise UserError(f"{what} have shape {images.shape}: there is nothing in them. Give at least one image.")
    if images.ndim == 3:
        images = images[:, None]
    else:
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first and last:
            raise UserError(
                f"{what} have shape {images.shape}, where channels could be the second or the last axis. "
                "The layout of images this thin is ambiguous: pad them to at least 4 pixels."
            )
        if not first and not last:
            raise UserError(
                f"{what} have shape {images.shape}: neither the second nor the last axis is 1 (grey) "
                "or 3 (colour) channels. Drop an alpha channel with images[..., :3]."
            )
        if last:
            images = images.transpose(0, 3, 1, 2)
    # Copied where it is a read-only view of a file or in another order: the tensor must own its memory.
    return torch.as_tensor(np.require(images, requirements=["C", "W"]))


def _conversion(images: Array) -> str:
    """The reason why images of another dtype than uint8 are rejected, and the line that converts them."""
    if images.dtype.kind not in "buif" or images.size == 0:
        return "which are not pixel values. Save 8-bit pixels: images.astype('uint8')."
    low, high = float(images.min()), float(images.max())
    found = f"from {low:g} to {high:g}; only uint8 is read, so that the scale is unambiguous. "
    if not np.isfinite([low, high]).all():
        return found + "There are values that are not finite: find out where they come from first."
    if images.dtype.kind == "b" or (images.dtype.kind == "f" and low >= 0 and high <= 1):
        return found + "For a scale of 0 to 1 save (images * 255.0).round().astype('uint8')."
    if images.dtype.kind == "f" and low >= -1 and high <= 1:
        return found + "For a scale of -1 to 1 save ((images + 1) * 127.5).round().astype('uint8')."
    if low >= 0 and high <= 255:
        return found + "For a scale of 0 to 255 save images.round().astype('uint8')."
    return found + "Scale them to 0 to 255, round, and save with .astype('uint8')."


def _labels(labels: Array | None, count: int, what: str) -> Tensor | None:
    if labels is None:
        return None
    if labels.dtype.kind not in "ui":
        raise UserError(f"{what} are {labels.dtype}, not integers. Number the classes from 0.")
    if labels.ndim != 1:
        raise UserError(f"{what} have shape {labels.shape}; give one integer per image, e.g. labels.ravel().")
    if len(labels) != count:
        raise UserError(f"{what} are {len(labels)}, but there are {count} images. Give one label per image.")
    if labels.min() < 0:
        raise UserError(f"{what} contain {labels.min()}. Number the classes from 0.")
    return torch.as_tensor(labels.astype(np.int64))


def _check_classes(origin: str, labels: Tensor | None, labels_test: Tensor | None) -> None:
    if labels is None:
        return
    present = labels if labels_test is None else torch.cat([labels, labels_test])
    if int(present.max()) >= len(present):
        raise UserError(
            f"{origin}: a label is {int(present.max())} among {len(present)} images. Number the classes 0, 1, 2, ..."
        )


def _size(images: Tensor) -> str:
    return "x".join(str(n) for n in images.shape[1:])
