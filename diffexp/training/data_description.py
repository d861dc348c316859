"""The description of a data set that a run needs to be loaded without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from diffexp.data.base import Data


@dataclass(frozen=True)
class DataDescription:
    """A data set in a few numbers, as run.json keeps it under `data_description`.

    Attributes:
        name: Of the data set.
        image_shape: (channels, height, width).
        std: Standard deviation of a training pixel on the scale [-1, 1].
        quantized: The images have 8 bits a pixel value.
        classes: Number of classes; None without labels.
        train: Number of training images.
        heldout: Number of held-out images.
    """

    name: str
    image_shape: tuple[int, int, int]
    std: float
    quantized: bool
    classes: int | None
    train: int
    heldout: int

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "DataDescription | None":
        """That of a run.json; None where it has none (runs of 0.1)."""
        found = cast("Mapping[str, Any] | None", record.get("data_description"))
        if found is None:
            return None
        channels, height, width = map(int, found["image_shape"])
        return cls(
            name=str(found["name"]),
            image_shape=(channels, height, width),
            std=float(found["std"]),
            quantized=bool(found["quantized"]),
            classes=None if found["classes"] is None else int(found["classes"]),
            train=int(found["train"]),
            heldout=int(found["heldout"]),
        )


def describe_data(data: Data) -> DataDescription:
    """The description of a data set that is at hand."""
    return DataDescription(
        name=data.name,
        image_shape=data.image_shape,
        std=data.std,
        quantized=data.quantized,
        classes=data.classes,
        train=data.size("train"),
        heldout=data.size("heldout"),
    )
