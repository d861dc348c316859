"""Many small images as one picture in a file."""

from pathlib import Path

import torch
from PIL import Image

from diffexp.data.pixels import Pixels, to_uint8
from diffexp.io.files import replacing
from diffexp.shapes import Images

TILE = 48  # pixels: a smaller image is magnified, by whole numbers, to at least this side


def save_grid(images: Images | Pixels, path: Path, columns: int = 8) -> None:
    """Write images, row by row, as one PNG with a thin white line between them.

    Args:
        images: Grey (1 channel) or RGB (3 channels), in [-1, 1] or already 8-bit; NaN is drawn black.
        path: Replaced atomically.
        columns: Images in a row; the last row may be shorter.

    Raises:
        ValueError: The images have neither one channel nor three.
    """
    if images.is_floating_point():
        images = to_uint8(images.nan_to_num(nan=-1.0))
    pixels = images.cpu()
    count, channels, height, width = pixels.shape
    if channels not in (1, 3):
        raise ValueError(f"images of {channels} channels cannot be drawn: a PNG is grey (1) or RGB (3).")
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    scale = max(1, -(-TILE // max(height, width)))
    pixels = pixels.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    high, wide = height * scale + 2, width * scale + 2
    canvas = torch.full((rows * high + 2, columns * wide + 2, channels), 255, dtype=torch.uint8)
    for i, tile in enumerate(pixels.permute(0, 2, 3, 1)):
        top, left = 2 + i // columns * high, 2 + i % columns * wide
        canvas[top : top + high - 2, left : left + wide - 2] = tile
    picture = Image.fromarray((canvas if channels == 3 else canvas.squeeze(-1)).numpy())
    with replacing(path) as part:
        picture.save(part, format="PNG")
