"""The two scales of a pixel: 8 bits on disk, [-1, 1] in every formula."""

from typing import TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

from diffexp.shapes import Images

Pixels: TypeAlias = UInt8[Tensor, "batch channel height width"]


def to_float(pixels: Pixels) -> Images:
    """8-bit pixels as float32 in [-1, 1]: 0 becomes -1 and 255 becomes 1, both exactly."""
    return pixels.to(torch.float32) / 127.5 - 1.0


def as_float(images: Images | Pixels) -> Images:
    """Images on the scale [-1, 1], whichever of the two they come on."""
    return images if images.is_floating_point() else to_float(images)


def to_uint8(images: Images) -> Pixels:
    """Images in [-1, 1] as 8-bit pixels, by clamping and rounding to the nearest; inverts `to_float`."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
