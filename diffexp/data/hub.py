"""Data sets of the Hugging Face hub, through its own library."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from PIL import Image

from diffexp.data.arrays import Array, Arrays
from diffexp.data.decode import decode, stack
from diffexp.errors import UserError


@runtime_checkable
class Rows(Protocol):
    """What is used of a `datasets.Dataset`."""

    column_names: list[str]

    def select_columns(self, names: list[str]) -> Iterable[dict[str, object]]: ...

    def __getitem__(self, column: str) -> Sequence[int]: ...


def read_hub(name: str, repository: str, image_column: str, label_column: str | None) -> Arrays:
    """The splits `train` and, if there, `test` of a hub data set, downloaded once into the library's cache.

    Args:
        name: Name of the choice, for messages.
        repository: owner/name on the hub, or any folder or loader that `datasets.load_dataset` takes.
        image_column: The column of pictures.
        label_column: The column of class numbers; None for none.

    Raises:
        UserError: The library is not installed, the data cannot be loaded, or lacks a column.
    """
    what = f"data={name} (Hugging Face data set {repository!r})"
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"{what} needs the package `datasets`, which is not installed. "
            f'Run pip install "diffexp[hub]", or give local files: data.path=FOLDER_OR_NPZ.'
        ) from error
    try:
        splits: Any = datasets.load_dataset(repository)
    except Exception as error:
        # The library and its HTTP client raise a dozen unrelated types here, all with one meaning.
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{what} could not be loaded: {type(error).__name__}: {reason}. "
            "Check the name and the network, or give local files: data.path=FOLDER_OR_NPZ."
        ) from error
    if "train" not in splits:
        raise UserError(
            f"{what} has the splits {', '.join(splits)}, but no 'train'. Save the one you want as .npz "
            "and give data.path."
        )
    images, labels = _read_split(what, "train", splits["train"], image_column, label_column)
    if "test" not in splits:
        return Arrays(what, images, labels)
    images_test, labels_test = _read_split(what, "test", splits["test"], image_column, label_column)
    return Arrays(what, images, labels, images_test, labels_test)


def _read_split(
    what: str, split: str, rows: Rows, image_column: str, label_column: str | None
) -> tuple[Array, Array | None]:
    for key, column in (("image", image_column), ("label", label_column)):
        if column is not None and column not in rows.column_names:
            raise UserError(
                f"{what} has no column {column!r} but {', '.join(rows.column_names)}. Set data.{key}_column."
            )
    images = stack(_pictures(what, split, rows, image_column))
    return images, None if label_column is None else np.asarray(rows[label_column][:])


def _pictures(what: str, split: str, rows: Rows, column: str) -> Iterator[tuple[str, Array]]:
    for number, row in enumerate(rows.select_columns([column])):
        origin = f"{what}, {split} image {number}"
        yield origin, decode(cast(Image.Image, row[column]), origin)
