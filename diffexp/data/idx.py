"""MNIST's idx files: Fashion-MNIST, KMNIST and EMNIST come in the same four."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from diffexp.data.arrays import Array, Arrays
from diffexp.errors import UserError

_LARGEST = 2**36
"""Bytes; larger sets do not fit in a memory."""

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def holds_idx(folder: Path) -> bool:
    """Whether any file in `folder` is named like one of MNIST's."""
    return any(folder.glob("*-idx?-ubyte")) or any(folder.glob("*-idx?-ubyte.gz"))


def read_idx_folder(folder: Path) -> Arrays:
    """The four files train-* and t10k-*, each with or without .gz.

    Raises:
        UserError: One of the four is not there.
        UserError: One is empty, damaged, or not what its name promises.
    """
    return Arrays(
        f"data.path={folder}",
        read_idx(_find(folder, f"train-{IMAGES}"), 3),
        read_idx(_find(folder, f"train-{LABELS}"), 1),
        read_idx(_find(folder, f"t10k-{IMAGES}"), 3),
        read_idx(_find(folder, f"t10k-{LABELS}"), 1),
    )


def read_idx(path: Path, ndim: int) -> Array:
    """One idx file of bytes with `ndim` axes: magic 0, 0, 8, ndim; big-endian uint32 sizes; data."""
    if path.stat().st_size == 0:
        raise UserError(f"{path} is an empty file (0 bytes). Download it again.")
    size = 4 + 4 * ndim
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(size)
            shape = _shape(header, ndim)
            if shape is None:
                raise UserError(
                    f"{path} starts with the bytes {header[:4].hex(' ') or '(none)'}, but an idx file of bytes with "
                    f"{ndim} axes starts with 00 00 08 {ndim:02x}. Download it again."
                )
            announced = math.prod(shape)
            content = file.read(min(announced, _LARGEST))  # a packed file may hold a thousand times its size
            held = "more" if file.read(1) else len(content)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise UserError(f"{path} is damaged or only a part ({error}). Download it again.") from error
    if held != announced:
        raise UserError(
            f"{path} announces {' x '.join(map(str, shape))} = {announced} bytes but holds {held}. Download it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(header: bytes, ndim: int) -> tuple[int, ...] | None:
    """The sizes that a header announces; None if it is cut off or another format's."""
    if header[:4] != bytes([0, 0, 8, ndim]) or len(header) != 4 + 4 * ndim:
        return None
    return struct.unpack(f">{ndim}I", header[4:])


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(
        f"data.path={folder} holds idx files but no {name}.gz (or {name}). "
        f"Put all four there: train- and t10k-, each with {IMAGES}.gz and {LABELS}.gz."
    )
