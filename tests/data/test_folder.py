from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffexp.data.arrays import image_data
from diffexp.data.folder import read_folder

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def classes(folder: Path, images: np.ndarray = IMAGES) -> None:
    for i, image in enumerate(images):
        save(folder / ("dog" if i % 2 else "cat") / f"{i}.png", image)


def test_a_flat_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for i, image in reversed(list(enumerate(IMAGES))):
        save(tmp_path / f"{i}.{'PNG' if i % 2 else 'bmp'}", image)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._0.png").write_bytes(b"left by another system")
    arrays = read_folder(tmp_path)
    assert np.array_equal(arrays.images, IMAGES)
    assert arrays.labels is None


def test_a_subfolder_is_a_class_numbered_by_name(tmp_path: Path) -> None:
    classes(tmp_path)
    arrays = read_folder(tmp_path)
    assert np.array_equal(arrays.images, IMAGES[[0, 2, 4, 1, 3, 5]])
    assert arrays.labels is not None
    assert arrays.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test", IMAGES[:2])
    data = image_data("toy", read_folder(tmp_path))
    assert (data.size("train"), data.size("heldout"), data.classes) == (6, 2, 2)
    assert np.array_equal(data.heldout_images.permute(0, 2, 3, 1).numpy(), IMAGES[:2])
    assert data.heldout_labels.tolist() == [0, 1]


def test_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "val")
    with pytest.raises(ValueError, match=r"holds train/ and val.*only test/ is understood"):
        read_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(ValueError, match="different class folders: dog, wolf"):
        read_folder(tmp_path)


def test_a_grey_test_split_beside_colour_is_refused(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test", IMAGES[..., 0])
    with pytest.raises(ValueError, match="is grey, the other has colour"):
        read_folder(tmp_path)


def test_images_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png", IMAGES[0])
    save(tmp_path / "b.png", IMAGES[1, 1:])
    with pytest.raises(ValueError, match=r"a\.png is 4x5 pixels but .*b\.png is 4x4"):
        read_folder(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "webp"])
def test_a_truncated_or_empty_image_is_named(tmp_path: Path, kind: str) -> None:
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for i in range(3):
        save(tmp_path / f"{i}.{kind}", large)
    path = tmp_path / f"1.{kind}"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"<html>" * 50):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"1\.{kind} cannot be read as an image"):
            read_folder(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", IMAGES[0])
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[45:60] = bytes(15)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        read_folder(tmp_path)


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    classes(tmp_path)
    save(tmp_path / "stray.png", IMAGES[0])
    with pytest.raises(ValueError, match=r"holds images \(stray.png\) and folders of images \(cat/\)"):
        read_folder(tmp_path)


def test_a_folder_without_images_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds no images\. Read are files ending in \.png"):
        read_folder(tmp_path)
