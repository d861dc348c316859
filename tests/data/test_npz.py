import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffexp.data.npz import read_npz

IMAGES = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4)


def test_images_labels_and_their_test_split_are_read(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    np.savez_compressed(
        path,
        images=IMAGES,
        labels=np.arange(10),
        images_test=IMAGES[:2],
        labels_test=np.arange(2),
        other=np.ones(1),
    )
    arrays = read_npz(path)
    assert arrays.labels is not None
    assert arrays.images_test is not None
    assert arrays.labels_test is not None
    assert np.array_equal(arrays.images, IMAGES)
    assert arrays.labels.tolist() == list(range(10))
    assert np.array_equal(arrays.images_test, IMAGES[:2])
    assert arrays.labels_test.tolist() == [0, 1]


def test_labels_are_optional(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", images=IMAGES)
    assert read_npz(tmp_path / "toy.npz").labels is None


def test_a_file_without_images_lists_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", x_train=IMAGES, y_train=np.arange(10))
    with pytest.raises(ValueError, match=r"toy\.npz holds x_train, y_train, but no array named 'images'"):
        read_npz(tmp_path / "toy.npz")


@pytest.mark.parametrize("key", ["images", "labels"])
def test_arrays_of_objects_are_never_unpickled(tmp_path: Path, key: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    objects = np.empty(2, dtype=object)
    objects[0] = objects[1] = Trap()
    np.savez(tmp_path / "toy.npz", **{"images": IMAGES, key: objects})
    with pytest.raises(ValueError, match=f"'{key}' is an array of Python objects"):
        read_npz(tmp_path / "toy.npz")
    assert not (tmp_path / "sprung").exists()


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy.npz").touch()
    with pytest.raises(ValueError, match=r"toy\.npz is an empty file"):
        read_npz(tmp_path / "toy.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_or_damaged_file_is_named(tmp_path: Path, compressed: bool) -> None:
    whole, path = tmp_path / "whole.npz", tmp_path / "toy.npz"
    noise = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(whole, images=noise)
    content = bytearray(whole.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"toy\.npz is not an \.npz file, or only the first part"):
        read_npz(path)
    for position in (30, 70, 150, len(content) // 2):
        damaged = content.copy()
        damaged[position : position + 20] = bytes(20)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"toy\.npz.* damaged"):
            read_npz(path)


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "toy.npz", "w") as file:
        file.writestr("images.npy", "not an array")
    with pytest.raises(ValueError, match=r"toy\.npz: 'images' is not an array"):
        read_npz(tmp_path / "toy.npz")


def test_another_format_under_the_name_npz_is_named(tmp_path: Path) -> None:
    with (tmp_path / "toy.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(ValueError, match=r"toy\.npz is not an \.npz file"):
        read_npz(tmp_path / "toy.npz")
