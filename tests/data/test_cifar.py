from pathlib import Path

import numpy as np
import pytest

from diffexp.data.arrays import image_data
from diffexp.data.stored import read_path
from diffexp.errors import UserError

RNG = np.random.default_rng(0)
NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def write(folder: Path) -> tuple[list[int], np.ndarray]:
    """Six batches of three images; returns all labels and all images (channels last) in order."""
    folder.mkdir(exist_ok=True)
    labels, images = RNG.integers(0, 10, 18), RNG.integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    for i, name in enumerate(NAMES):
        content = b""
        for label, image in zip(labels[3 * i : 3 * i + 3], images[3 * i : 3 * i + 3], strict=True):
            content += bytes([label]) + image[..., 0].tobytes() + image[..., 1].tobytes() + image[..., 2].tobytes()
        (folder / name).write_bytes(content)
    return labels.tolist(), images


@pytest.mark.parametrize("inner", [".", "cifar-10-batches-bin"])
def test_the_batches_are_read_in_order_from_either_folder(tmp_path: Path, inner: str) -> None:
    labels, images = write(tmp_path / inner)
    data = image_data("cifar10", read_path(tmp_path))
    assert np.array_equal(data.train.permute(0, 2, 3, 1).numpy(), images[:15])
    assert np.array_equal(data.heldout_images.permute(0, 2, 3, 1).numpy(), images[15:])
    assert [*data.train_labels.tolist(), *data.heldout_labels.tolist()] == labels


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_3\.bin"):
        read_path(tmp_path)


def test_a_truncated_an_empty_and_a_foreign_batch_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    whole = path.read_bytes()
    for content, why in (
        (whole[:-1], "9218 bytes, no multiple of 3073"),
        (b"", "is an empty file"),
        (bytes([10]) + whole[1:], "has the label 10"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"data_batch_2.bin .*{why}|data_batch_2.bin {why}"):
            read_path(tmp_path)


def test_the_pickled_version_is_refused_with_the_name_of_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q")
    with pytest.raises(ValueError, match=r"pickles could run any code.*cifar-10-binary\.tar\.gz"):
        read_path(tmp_path)
