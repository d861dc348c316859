"""CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin."""

from pathlib import Path

import numpy as np

from diffexp.data.arrays import Array, Arrays
from diffexp.errors import UserError

TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
RECORD = 1 + 3 * 32 * 32
"""A record is one label byte, then 1024 red, 1024 green and 1024 blue bytes, row by row."""


def cifar_folder(folder: Path) -> Path | None:
    """`folder`, or the one that unpacking the archive made in it, if CIFAR-10's batches are there."""
    for place in (folder, folder / "cifar-10-batches-bin"):
        if any((place / name).is_file() for name in (*TRAIN, TEST)):
            return place
    return None


def read_cifar10(folder: Path) -> Arrays:
    """The five training batches and the test batch.

    Raises:
        UserError: A batch is not there.
        UserError: A batch is empty, cut off, or not CIFAR-10's.
    """
    missing = [name for name in (*TRAIN, TEST) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"data.path={folder} lacks {', '.join(missing)}. Unpack cifar-10-binary.tar.gz whole.")
    train = np.concatenate([_records(folder / name) for name in TRAIN])
    test = _records(folder / TEST)
    return Arrays(f"data.path={folder}", _images(train), train[:, 0], _images(test), test[:, 0])


def _records(path: Path) -> Array:
    content = np.fromfile(path, np.uint8)
    if content.size == 0:
        raise UserError(f"{path} is an empty file (0 bytes). Unpack cifar-10-binary.tar.gz again.")
    if content.size % RECORD:
        raise UserError(
            f"{path} has {content.size} bytes, no multiple of {RECORD}, the size of a labelled image. "
            "It was cut off, or is not CIFAR-10's binary version: unpack cifar-10-binary.tar.gz again."
        )
    records = content.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise UserError(
            f"{path} has the label {records[:, 0].max()}, but CIFAR-10's are 0 to 9. "
            "CIFAR-100 has other records: save it as .npz."
        )
    return records


def _images(records: Array) -> Array:
    return records[:, 1:].reshape(-1, 3, 32, 32)
