"""NumPy's .npz files."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from diffexp.data.arrays import Array, Arrays
from diffexp.errors import UserError

KEYS = ("images", "labels", "images_test", "labels_test")


def read_npz(path: Path) -> Arrays:
    """The arrays `images` and, if there, `labels`, `images_test` and `labels_test`; nothing is unpickled.

    Raises:
        UserError: The file is empty, damaged or of another format, or holds objects or other names.
    """
    if path.stat().st_size == 0:
        raise UserError(f"data.path={path} is an empty file (0 bytes). Copy or write it again.")
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"data.path={path} is not an .npz file, or only the first part of one. "
            "Copy it again, or write it with numpy.savez(path, images=..., labels=...)."
        )
    try:
        _require_fits_in_memory(path)
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Array] = {key: _array(path, file, key) for key in KEYS if key in file.files}
            names = file.files
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError) as error:
        raise UserError(f"data.path={path} is damaged ({error}). Copy or write it again.") from error
    if "images" not in found:
        raise UserError(
            f"data.path={path} holds {', '.join(names) or 'nothing'}, but no array named 'images'. "
            "Write it with numpy.savez(path, images=..., labels=...); optional: images_test, labels_test."
        )
    return Arrays(
        f"data.path={path}",
        found["images"],
        found.get("labels"),
        found.get("images_test"),
        found.get("labels_test"),
    )


def _require_fits_in_memory(path: Path) -> None:
    """A few MB may unpack to any size, and the whole set is held in memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with zipfile.ZipFile(path) as packed:
        size = sum(member.file_size for member in packed.infolist() if member.filename.removesuffix(".npy") in KEYS)
    if size > memory:
        raise UserError(
            f"data.path={path} unpacks to {size / 2**30:.3g} GiB, and this machine has {memory / 2**30:.3g} GiB of "
            "memory, where the whole set is held. Take fewer or smaller images."
        )


def _array(path: Path, file: Mapping[str, object], key: str) -> Array:
    try:
        array = file[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"data.path={path}: '{key}' is an array of Python objects, and unpickling those "
                "could run any code. Save numbers: numpy.stack(images) instead of a list of unequal arrays."
            ) from error
        raise UserError(f"data.path={path}: '{key}' is damaged ({error}). Write the file again.") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"data.path={path}: '{key}' is not an array. Write the file with numpy.savez.")
    return cast(Array, array)
