"""A folder of image files, with a subfolder per class or without."""

import struct
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from diffexp.data.arrays import Array, Arrays
from diffexp.data.decode import decode, stack
from diffexp.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")

_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


def read_folder(folder: Path) -> Arrays:
    """The image files of `folder`, in the order of their names; a subfolder is a class.

    Subfolders `train` and `test` are splits, each laid out so. Files of other types and names that start
    with a dot are passed over.

    Raises:
        UserError: There are no images, they differ in size, or one cannot be read.
    """
    subfolders = {path.name for path in _subfolders(folder)}
    if "train" not in subfolders:
        images, labels, _ = _read_split(folder)
        return Arrays(f"data.path={folder}", images, labels)
    if subfolders != {"train", "test"} or _files(folder):
        beside = sorted(subfolders - {"train"} | {path.name for path in _files(folder)})
        raise UserError(
            f"data.path={folder} holds train/ and {', '.join(beside[:5]) or 'nothing else'}. Beside it "
            f"only test/ is understood: add it, or give data.path={folder / 'train'} to hold a fifth out."
        )
    images, labels, classes = _read_split(folder / "train")
    images_test, labels_test, classes_test = _read_split(folder / "test")
    if classes != classes_test:
        differing = sorted(set(classes) ^ set(classes_test))
        raise UserError(
            f"data.path={folder}: train/ and test/ have different class folders: "
            f"{', '.join(differing[:5])} only in one. Both need the same."
        )
    if images.ndim != images_test.ndim:
        raise UserError(
            f"data.path={folder}: one of train/ and test/ is grey, the other has colour. Convert one of them."
        )
    return Arrays(f"data.path={folder}", images, labels, images_test, labels_test)


def _read_split(folder: Path) -> tuple[Array, Array | None, list[str]]:
    flat = _files(folder)
    classes = {sub.name: files for sub in _subfolders(folder) if (files := _files(sub))}
    if flat and classes:
        raise UserError(
            f"data.path={folder} holds images ({flat[0].name}) and folders of images "
            f"({next(iter(classes))}/). Move all images into class folders, or none."
        )
    if flat:
        return stack(_pictures(flat)), None, []
    if not classes:
        raise UserError(
            f"data.path={folder} holds no images. Read are files ending in {', '.join(SUFFIXES)}, here or "
            "one folder down; MNIST's four idx files; CIFAR-10's binary batches; or give an .npz file."
        )
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return stack(_pictures(file for files in classes.values() for file in files)), labels, list(classes)


def _pictures(files: Iterable[Path]) -> Iterator[tuple[str, Array]]:
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    yield str(path), decode(picture, str(path))
        except (OSError, SyntaxError, EOFError, struct.error, *_BOMBS) as error:
            raise UserError(
                f"{path} cannot be read as an image ({error}). Replace it or take it out of the folder."
            ) from error


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
