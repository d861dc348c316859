"""Pictures of any file format as 8-bit arrays of one size, by one rule per colour mode."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from diffexp.data.arrays import Array
from diffexp.errors import UserError

GREY, COLOUR, ALPHA = ("L", "1"), ("RGB", "P"), ("RGBA", "LA", "PA")


def decode(picture: Image.Image, what: str) -> Array:
    """One picture as uint8 (height, width) if grey, (height, width, 3) if colour.

    Black-and-white becomes grey, a palette becomes colour, and an alpha channel is dropped if nothing is
    transparent. An image whose conversion needs a decision (a background, a tone curve) is rejected.

    Raises:
        UserError: The picture is transparent, 16-bit, of several frames, or of a mode for print.
        OSError, SyntaxError: The file is damaged (from Pillow).
    """
    if getattr(picture, "n_frames", 1) > 1:
        raise UserError(f"{what} has several frames. Save each as a picture of its own.")
    if _depth(picture) > 8:
        raise UserError(
            f"{what} has 16 bits or more a channel (mode {picture.mode}). Convert it to 8 bits, "
            "e.g. magick mogrify -depth 8."
        )
    if picture.mode in ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA" if picture.mode not in ("L", "1", "LA") else "LA")
        if picture.getchannel("A").getextrema() != (255, 255):
            raise UserError(
                f"{what} has transparent pixels, and what lies behind them is not known. Flatten it, "
                "e.g. magick mogrify -background white -flatten."
            )
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    if picture.mode in GREY:
        return np.asarray(picture.convert("L"))
    if picture.mode in COLOUR:
        return np.asarray(picture.convert("RGB"))
    raise UserError(f"{what} has the colour mode {picture.mode}; read are grey and RGB. Convert it to RGB.")


def stack(pictures: Iterable[tuple[str, Array]]) -> Array:
    """Named pictures of one size as (N, height, width), or (N, height, width, 3) if any has colour.

    Raises:
        UserError: Two of them differ in size; both are named.
    """
    arrays: list[Array] = []
    first = ""
    for what, array in pictures:
        if not arrays:
            first = what
        elif array.shape[:2] != arrays[0].shape[:2]:
            raise UserError(
                f"{first} is {_size(arrays[0])} pixels but {what} is {_size(array)} (width x height). "
                "A network is trained on one size: resize or crop them all to it."
            )
        arrays.append(array)
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    return np.stack(arrays)


def _depth(picture: Image.Image) -> int:
    if picture.mode == "F" or picture.mode.startswith("I"):
        return 16
    # Pillow opens 16-bit colour as 8-bit which shows only in the raw mode of its decoder.
    return 16 if any(";16" in str(tile) for tile in getattr(picture, "tile", ())) else 8


def _size(array: Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
