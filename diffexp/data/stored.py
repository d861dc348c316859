"""Stored images: under a path, or on the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffexp.data.arrays import Arrays, image_data
from diffexp.data.base import Source
from diffexp.data.cifar import cifar_folder, read_cifar10
from diffexp.data.folder import read_folder
from diffexp.data.hub import read_hub
from diffexp.data.idx import holds_idx, read_idx_folder
from diffexp.data.images import ImageData
from diffexp.data.npz import read_npz
from diffexp.errors import UserError

FORMATS = (
    "an .npz file with arrays `images` and, if you like, `labels`, `images_test`, `labels_test`; a folder "
    "of MNIST's four idx.gz files; CIFAR-10's binary version; or a folder of image files"
)


@dataclass(frozen=True)
class StoredImages(Source):
    """The images under `path` if it is given, else those of the hub's `hub`.

    Attributes:
        name: What the choice is called, for messages.
        path: A file or folder; its format is recognised (see `read_path`).
        hub: A data set on the Hugging Face hub, as owner/name.
        image_column: The hub data set's column of pictures.
        label_column: Its column of class numbers, or None.
        image_shape: The (channel, height, width) that the images must have, or None for any.
        flip: Mirror each training image with probability 1/2.
    """

    name: str
    path: str | None = None
    hub: str | None = None
    image_column: str = "image"
    label_column: str | None = "label"
    image_shape: Sequence[int] | None = None
    flip: bool = False

    def load(self) -> ImageData:
        if self.path is not None:
            arrays = read_path(Path(self.path))
        elif self.hub is not None:
            arrays = read_hub(self.name, self.hub, self.image_column, self.label_column)
        else:
            raise UserError(f"data={self.name} needs images. Give data.path=PATH ({FORMATS}), or data.hub=OWNER/NAME.")
        data = image_data(self.name, arrays, self.flip)
        if self.image_shape is not None and data.image_shape != tuple(self.image_shape):
            found, wanted = ("x".join(map(str, shape)) for shape in (data.image_shape, self.image_shape))
            raise UserError(
                f"{arrays.origin}: the images are {found}, but data={self.name} has {wanted} "
                "(channels x height x width). For other images take data=images."
            )
        return data


def read_path(path: Path) -> Arrays:
    """The arrays under a file or folder, whose format is recognised by file names.

    Raises:
        UserError: Nothing is there.
        UserError: It is of no known format, or damaged.
    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(
            f"data.path={path} does not exist (relative to {Path.cwd()}). Give {FORMATS}."
            if not path.is_absolute()
            else f"data.path={path} does not exist. Give {FORMATS}."
        )
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return read_npz(path)
        raise UserError(f"data.path={path} is a file of an unsupported type{_advice(path)}. Give {FORMATS}.")
    if holds_idx(path):
        return read_idx_folder(path)
    batches = cifar_folder(path)
    if batches is not None:
        return read_cifar10(batches)
    if (path / "data_batch_1").is_file() or (path / "cifar-10-batches-py").is_dir():
        raise UserError(
            f"data.path={path} holds CIFAR-10's Python version, whose pickles could run any code. "
            "Take the binary version, cifar-10-binary.tar.gz."
        )
    return read_folder(path)


def _advice(path: Path) -> str:
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar", ".zip")):
        return " (unpack it and give the folder)"
    if name.endswith(("-ubyte", "-ubyte.gz", ".bin")):
        return f" (give the folder that it is in: data.path={path.parent})"
    if name.endswith((".npy", ".pt", ".pth", ".pkl")):
        return " (save its arrays with numpy.savez)"
    return ""
