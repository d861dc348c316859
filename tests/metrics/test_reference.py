from pathlib import Path

import pytest
import torch

from diffexp.data import ImageData
from diffexp.data.digits import Digits
from diffexp.metrics import distance
from diffexp.metrics.classifier import ClassifierFeatures, TrainedClassifier
from diffexp.metrics.reference import floor, reference

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load()


@pytest.fixture(scope="module")
def features(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> ClassifierFeatures:
    recipe = TrainedClassifier(epochs=1, min_steps=30)
    return recipe.build(digits, tmp_path_factory.mktemp("cache"), CPU)


def test_the_training_set_is_at_no_distance_from_its_own_statistics(
    digits: ImageData, features: ClassifierFeatures, tmp_path: Path
) -> None:
    against = reference(features, digits, tmp_path)
    assert against.moments.count == digits.size("train")
    assert distance.frechet(against.moments, features(digits.reference("train"))) == pytest.approx(0, abs=1e-6)


def test_the_floor_is_the_distance_of_held_out_images(
    digits: ImageData, features: ClassifierFeatures, tmp_path: Path
) -> None:
    against = reference(features, digits, tmp_path)
    least = floor(features, digits, 200, against, tmp_path)
    train, heldout = features(digits.reference("train")), features(digits.reference("heldout", 200))
    assert least.count == 200
    assert least.frechet > 0
    assert least.frechet == distance.frechet(distance.moments(train), heldout)
    assert least.kid == distance.kid(train, heldout)


def test_a_floor_for_more_images_than_are_held_out_says_how_many_it_took(
    digits: ImageData, features: ClassifierFeatures, tmp_path: Path
) -> None:
    against = reference(features, digits, tmp_path)
    assert floor(features, digits, 50_000, against, tmp_path).count == digits.size("heldout")


def test_statistics_are_computed_once_for_all_counts(
    digits: ImageData, features: ClassifierFeatures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = reference(features, digits, tmp_path)
    least = floor(features, digits, 100, first, tmp_path)
    assert "1438 digits training images" in capsys.readouterr().out
    second = reference(features, digits, tmp_path)
    assert capsys.readouterr().out == ""
    assert torch.equal(first.moments.outer, second.moments.outer)
    assert torch.equal(first.features, second.features)
    assert floor(features, digits, 100, second, tmp_path) == least
    assert floor(features, digits, 300, second, tmp_path) != least


def test_other_data_or_another_network_have_their_own_statistics(
    digits: ImageData, features: ClassifierFeatures, tmp_path: Path
) -> None:
    inverted = ImageData(
        "digits", 255 - digits.train, digits.heldout_images, digits.train_labels, digits.heldout_labels
    )
    other = TrainedClassifier(epochs=1, min_steps=31).build(digits, tmp_path, CPU)
    sums = [
        reference(features, digits, tmp_path).moments.total,
        reference(features, inverted, tmp_path).moments.total,
        reference(other, digits, tmp_path).moments.total,
    ]
    assert len(list((tmp_path / "reference").glob("*.safetensors"))) == 3
    assert not torch.equal(sums[0], sums[1])
    assert not torch.equal(sums[0], sums[2])
