from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from diffexp.data.base import Source
from diffexp.data.stored import StoredImages
from diffexp.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)


def composed(choice: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"data={choice}", *overrides])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_in_conf_builds_a_source_whose_name_it_is(choice: str) -> None:
    source = instantiate(composed(choice).data)
    assert isinstance(source, Source)
    if isinstance(source, StoredImages):
        assert source.name == choice


def test_clipping_is_off_where_images_leave_the_range() -> None:
    for choice in CHOICES:
        assert composed(choice).sampling.clip == (choice not in ("mixture", "gaussian"))


def test_digits_and_letters_are_never_flipped_and_cifar10_is() -> None:
    flips = {choice: composed(choice).data.get("flip") for choice in CHOICES}
    assert flips["cifar10"] is True
    assert [flips[choice] for choice in ("digits", "mnist", "fashion_mnist", "images")] == [False] * 4


def test_a_preset_takes_a_path_from_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", images=IMAGES, labels=np.arange(10))
    data = instantiate(composed("mnist", f"data.path={tmp_path}/toy.npz", "data.flip=true").data).load()
    assert (data.name, data.image_shape, data.classes, data.flip) == ("mnist", (1, 28, 28), 10, True)


def test_images_of_another_size_than_the_preset_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", images=IMAGES)
    source = StoredImages("cifar10", path=str(tmp_path / "toy.npz"), image_shape=(3, 32, 32))
    with pytest.raises(ValueError, match=r"toy.npz: the images are 1x28x28, but data=cifar10 has 3x32x32"):
        source.load()


def test_a_path_that_does_not_exist_is_named_with_where_it_was_looked_for() -> None:
    with pytest.raises(UserError, match=r"data.path=nowhere/to/be does not exist \(relative to "):
        StoredImages("images", path="nowhere/to/be").load()
    with pytest.raises(UserError, match=r"data.path=/nowhere/to/be does not exist\. Give an \.npz"):
        StoredImages("images", path="/nowhere/to/be").load()


def test_neither_path_nor_hub_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data=images needs images. Give data.path="):
        StoredImages("images").load()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cifar-10-binary.tar.gz", "unpack it"),
        ("images.zip", "unpack it"),
        ("train-images-idx3-ubyte.gz", "give the folder"),
        ("data_batch_1.bin", "give the folder"),
        ("images.pt", "numpy.savez"),
        ("images.csv", "unsupported type\\. Give an \\.npz"),
    ],
)
def test_a_file_of_another_type_is_refused_with_advice(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(ValueError, match=f"{name} is a file of a unsupported type.*{advice}|{name}.*{advice}"):
        StoredImages("images", path=str(tmp_path / name)).load()


def test_a_folder_of_images_is_recognised(tmp_path: Path) -> None:
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    data = StoredImages("images", path=str(tmp_path)).load()
    assert (data.size("train"), data.size("heldout"), data.classes) == (8, 2, None)
