from pathlib import Path

import pytest
import torch

from diffexp.data import ImageData
from diffexp.data.digits import Digits
from diffexp.data.pixels import to_float
from diffexp.metrics.classifier import ClassifierFeatures, ClassifierNetwork, TrainedClassifier

CPU = torch.device("cpu")
SHORT = TrainedClassifier(epochs=1, min_steps=30)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load()


@pytest.fixture(scope="module")
def trained(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> ClassifierFeatures:
    return SHORT.build(digits, tmp_path_factory.mktemp("cache"), CPU)


def test_the_default_network_learns_to_read_digits(digits: ImageData, tmp_path: Path) -> None:
    features = TrainedClassifier().build(digits, tmp_path, CPU)
    assert features.heldout_accuracy > 0.98


def test_training_twice_gives_the_same_bits_whatever_was_drawn_before(
    digits: ImageData, trained: ClassifierFeatures, tmp_path: Path
) -> None:
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    again = SHORT.build(digits, tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert again.fingerprint == trained.fingerprint
    images = digits.reference("heldout")
    assert torch.equal(again(images), trained(images))


def test_the_recorded_accuracy_is_the_networks(digits: ImageData, trained: ClassifierFeatures) -> None:
    network = trained._network
    labels = digits.labels("heldout")
    assert labels is not None
    answers = network(to_float(digits.reference("heldout"))).argmax(1)
    assert trained.heldout_accuracy == pytest.approx(float((answers == labels).double().mean()))
    assert 0.5 < trained.heldout_accuracy < 1, "30 steps are a start"


def test_it_is_trained_once_and_then_read(
    digits: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = SHORT.build(digits, tmp_path, CPU)
    assert "held-out images correct" in capsys.readouterr().out
    second = SHORT.build(digits, tmp_path, CPU)
    assert capsys.readouterr().out == ""
    assert second.fingerprint == first.fingerprint
    assert second.heldout_accuracy == first.heldout_accuracy


def test_other_data_or_settings_have_another_network(digits: ImageData, tmp_path: Path) -> None:
    inverted = ImageData(
        "digits", 255 - digits.train, digits.heldout_images, digits.train_labels, digits.heldout_labels
    )
    wider = TrainedClassifier(dimension=16, epochs=1, min_steps=30)
    built = [
        SHORT.build(digits, tmp_path, CPU),
        SHORT.build(inverted, tmp_path, CPU),
        wider.build(digits, tmp_path, CPU),
    ]
    assert len({features.fingerprint for features in built}) == 3
    assert len(list((tmp_path / "classifier").glob("*.safetensors"))) == 3
    assert built[2](digits.reference("heldout", 5)).shape == (5, 16)


def test_features_do_not_depend_on_the_batch_they_come_in(digits: ImageData, trained: ClassifierFeatures) -> None:
    images = digits.reference("train", 1100)
    alone = torch.cat([trained(part) for part in torch.split(images, 37)])
    torch.testing.assert_close(trained(images), alone, rtol=1e-5, atol=1e-5)


def test_8_bit_images_and_the_same_in_floats_have_the_same_features(
    digits: ImageData, trained: ClassifierFeatures
) -> None:
    images = digits.reference("heldout", 10)
    assert torch.equal(trained(images), trained(to_float(images)))


def test_a_trainers_autocast_does_not_round_the_features(digits: ImageData, trained: ClassifierFeatures) -> None:
    images = digits.reference("heldout", 10)
    with torch.autocast("cpu", torch.bfloat16):
        inside = trained(images)
    assert torch.equal(inside, trained(images))
    assert not inside.requires_grad


def test_halving_the_contrast_moves_the_features(digits: ImageData, trained: ClassifierFeatures) -> None:
    # a network that normalises each image would not see it
    images = to_float(digits.reference("heldout"))
    whole, pale = trained(images), trained(images * 0.5)
    assert (whole - pale).norm() > 0.2 * whole.norm()


@pytest.mark.parametrize("side", [4, 8, 28, 32, 64, 100])
def test_every_image_size_ends_at_8_pixels_or_fewer(side: int) -> None:
    network = ClassifierNetwork(channels=3, side=side, dimension=64, classes=10).eval()
    left = network.trunk(torch.zeros(1, 3, side, side, dtype=torch.float32)).shape
    assert left[1] == 128
    assert left[-1] <= 8


def test_data_without_labels_are_refused_by_name(digits: ImageData, tmp_path: Path) -> None:
    bare = ImageData("photos", digits.train, digits.heldout_images)
    with pytest.raises(ValueError, match=r"data=photos.*labels.*metric=inception or metric=none"):
        SHORT.build(bare, tmp_path, CPU)


def test_data_of_one_class_are_refused(digits: ImageData, tmp_path: Path) -> None:
    zeros = [torch.zeros(digits.size(split), dtype=torch.int64) for split in ("train", "heldout")]
    alike = ImageData("zeros", digits.train, digits.heldout_images, *zeros)
    with pytest.raises(ValueError, match=r"data=zeros.*all the same"):
        SHORT.build(alike, tmp_path, CPU)
