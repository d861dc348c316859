import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from diffexp.data.arrays import Array, image_data
from diffexp.data.idx import read_idx, read_idx_folder
from diffexp.data.stored import read_path
from diffexp.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 5, 4), dtype=np.uint8)
LABELS = (np.arange(20) % 4).astype(np.uint8)
TRAIN = "train-images-idx3-ubyte.gz"


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, test_images: Array = IMAGES[:6]) -> Path:
    files = {
        "train-images-idx3-ubyte": IMAGES,
        "train-labels-idx1-ubyte": LABELS,
        "t10k-images-idx3-ubyte": test_images,
        "t10k-labels-idx1-ubyte": LABELS[:6],
    }
    for name, array in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def test_the_four_files_are_read_packed_or_not(tmp_path: Path) -> None:
    packed = read_idx_folder(write(tmp_path))
    assert np.array_equal(packed.images, IMAGES)
    for path in list(tmp_path.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = read_path(tmp_path)
    for one in (packed, plain):
        data = image_data("toy", one)
        assert np.array_equal(data.train[:, 0].numpy(), IMAGES)
        assert np.array_equal(data.heldout_images[:, 0].numpy(), IMAGES[:6])
        assert data.train_labels.tolist() == LABELS.tolist()
        assert data.heldout_labels.tolist() == LABELS[:6].tolist()


def test_a_wrong_magic_number_is_named(tmp_path: Path) -> None:
    path = write(tmp_path) / TRAIN
    path.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(ValueError, match=f"{TRAIN} starts with the bytes 00 00 08 01, but .* 00 00 08 03"):
        read_idx_folder(tmp_path)
    for content in (b"<html>not found</html>", b"\0\0", bytes([0, 0, 13, 3]) + bytes(12)):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=f"{TRAIN} starts with"):
            read_idx_folder(tmp_path)


def test_a_truncated_or_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path) / TRAIN
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:100], whole[:3], b"not gzip", whole[:50] + bytes(60) + whole[110:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{TRAIN} is damaged"):
            read_idx_folder(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{TRAIN} is an empty file"):
        read_idx_folder(tmp_path)


@pytest.mark.parametrize("content", [idx(IMAGES)[:-1], idx(IMAGES) + b"x"])
def test_a_file_longer_or_shorter_than_it_says_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"announces 20 x 5 x 4 = 400 bytes but holds (399|more)"):
        read_idx(path, 3)


def test_a_missing_file_of_the_four_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"no t10k-labels-idx1-ubyte\.gz"):
        read_path(tmp_path)


def test_training_and_test_images_of_different_size_are_refused(tmp_path: Path) -> None:
    arrays = read_idx_folder(write(tmp_path, test_images=np.zeros((6, 5, 5), np.uint8)))
    with pytest.raises(ValueError, match="training images are 1x5x4 but test images are 1x5x5"):
        image_data("toy", arrays)
