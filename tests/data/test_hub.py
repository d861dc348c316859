import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffexp.data.arrays import image_data
from diffexp.data.hub import read_hub

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)


def test_without_the_library_the_message_names_the_extra_and_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'data=mnist .*pip install "diffexp\[hub\]".*data\.path='):
        read_hub("mnist", "ylecun/mnist", "image", "label")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the library reads as a data set with splits train (7) and test (2), classes cat and dog."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for i, image in enumerate(IMAGES):
        path = tmp_path / "toy" / ("train" if i < 7 else "test") / ("dog" if i % 2 else "cat") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "toy"


def test_splits_images_and_labels_are_read(saved: Path) -> None:
    data = image_data("toy", read_hub("toy", str(saved), "image", "label"))
    assert (data.size("train"), data.size("heldout"), data.classes) == (7, 2, 2)
    for images, labels in ((data.train, data.train_labels), (data.heldout_images, data.heldout_labels)):
        for image, label in zip(images.permute(0, 2, 3, 1).numpy(), labels, strict=True):
            assert label == next(i for i in range(9) if np.array_equal(IMAGES[i], image)) % 2
    assert image_data("toy", read_hub("toy", str(saved), "image", None)).classes is None


def test_a_column_that_is_not_there_is_named_with_those_that_are(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'img' but image, label\. Set data\.image_column"):
        read_hub("toy", str(saved), "img", "label")


def test_a_data_set_that_is_not_there_is_named(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"elsewhere'\) could not be loaded"):
        read_hub("toy", str(saved / "elsewhere"), "image", "label")
