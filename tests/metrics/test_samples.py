import math
from dataclasses import dataclass
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from diffexp.data import Data, ImageData
from diffexp.data.digits import Digits
from diffexp.data.pixels import to_float
from diffexp.errors import UserError
from diffexp.metrics.classifier import ClassifierFeatures, TrainedClassifier
from diffexp.metrics.features import FeatureRecipe, Features
from diffexp.metrics.inception import InceptionFeatures
from diffexp.metrics.samples import (
    Generate,
    Metric,
    NoMetric,
    PreparedMetric,
    PreparedSampleMetric,
    SampleMetric,
)

CPU = torch.device("cpu")
CONF = Path(__file__).parents[2] / "conf" / "metric"


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def prepared(digits: ImageData, cache: str, count: int) -> PreparedSampleMetric:
    recipe = TrainedClassifier(epochs=1, min_steps=30)
    metric = SampleMetric(recipe, count=count, batch=150, cache=cache).prepare(digits, CPU)
    assert isinstance(metric, PreparedSampleMetric)
    return metric


def shows(images: Tensor) -> Generate:
    """A model that has learned to give just these images."""
    return lambda first, count: images[first : first + count]


def test_held_out_images_shown_as_samples_score_the_floor(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 359)
    values = metric(shows(to_float(digits.reference("heldout"))))
    assert values["fd/classifier_359"] == pytest.approx(values["fd/classifier_359/floor"], rel=1e-6)
    assert values["kid/classifier_359"] == pytest.approx(values["kid/classifier_359/floor"], rel=1e-6)
    assert values.keys() == {f"{d}/classifier_359{f}" for d in ("fd", "kid") for f in ("", "/floor")} | {
        "fd/classifier_359/accuracy",
        "fd/classifier_359/chance",
    }


def test_a_classifiers_accuracy_is_told_beside_its_distances(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 150)
    values = metric(shows(to_float(digits.reference("heldout"))))
    assert isinstance(metric.features, ClassifierFeatures)
    assert values["fd/classifier_150/accuracy"] == metric.features.heldout_accuracy
    assert values["fd/classifier_150/chance"] == 0.1


def test_worse_samples_score_worse(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 359)
    images = to_float(digits.reference("heldout"))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    scores = [metric(shows((images + s * noise).clamp(-1, 1))) for s in (0.0, 0.3, 1.0)]
    for name in ("fd/classifier_359", "kid/classifier_359"):
        worse = [score[name] for score in scores]
        assert worse == sorted(worse)
        assert worse[2] > 10 * abs(worse[0])


def test_samples_are_rounded_to_8_bits_as_the_data_are(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 359)
    images = to_float(digits.reference("heldout"))
    nudged = images + 0.45 / 127.5  # truncation would take this, or its negative, to another grey level
    assert metric(shows(nudged)) == metric(shows(images)) == metric(shows(images - 0.45 / 127.5))


def test_unquantised_data_are_judged_as_they_are(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 359)
    images = to_float(digits.reference("heldout"))
    digits_in_floats = ImageData("digits", digits.train, digits.heldout_images)
    digits_in_floats.quantized = False
    floats = PreparedSampleMetric(
        digits_in_floats, metric.features, metric.reference, metric.floor, metric.count, metric.batch
    )
    assert floats(shows(images + 0.45 / 127.5)) != floats(shows(images))


def test_a_floor_of_fewer_images_than_samples_says_so(digits: ImageData, cache: str) -> None:
    values = prepared(digits, cache, 1000)(shows(to_float(digits.reference("train"))))
    assert values["fd/classifier_1k/floor_count"] == 359
    assert values["kid/classifier_1k/floor_count"] == 359
    assert "fd/classifier_1k/unreliable" not in values


def test_no_more_samples_than_dimensions_are_marked_unreliable(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 64)
    with pytest.warns(UserWarning, match="64 images do not give a covariance of 64 features"):
        values = metric(shows(to_float(digits.reference("train"))))
    assert values["fd/classifier_64/unreliable"] == 1.0
    assert values["fd/classifier_64/floor/unreliable"] == 1.0


def test_samples_that_are_not_finite_score_nan_and_are_counted(digits: ImageData, cache: str) -> None:
    metric = prepared(digits, cache, 359)
    images = to_float(digits.reference("heldout"))
    images[200, 0, 3, 3], images[210], images[290] = float("nan"), float("inf"), float("nan")
    with pytest.warns(UserWarning, match="3 of the 150 samples from number 150 on are not finite"):
        values = metric(shows(images))
    assert math.isnan(values["fd/classifier_359"])
    assert math.isnan(values["kid/classifier_359"])
    assert math.isfinite(values["fd/classifier_359/floor"])


@pytest.mark.parametrize(("count", "name"), [(50_000, "50k"), (10_000, "10k"), (1500, "1500"), (359, "359")])
def test_a_metrics_name_says_its_features_and_count(digits: ImageData, cache: str, count: int, name: str) -> None:
    metric = prepared(digits, cache, 359)
    inception = InceptionFeatures(torch.nn.Identity(), "6726825d" + "0" * 56, CPU)
    fid = PreparedSampleMetric(digits, inception, metric.reference, metric.floor, count, metric.batch)
    assert fid.summary().startswith(f"fid/inception_{name}: {count} samples against 1438 digits")


@pytest.mark.parametrize("count", [0, 1])
def test_a_count_without_a_covariance_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"metric.count={count}"):
        SampleMetric(TrainedClassifier(), count=count)


def test_a_data_set_of_one_held_out_image_is_refused(digits: ImageData) -> None:
    single = ImageData("single", digits.train, digits.heldout_images[:1])
    with pytest.raises(ValueError, match=r"data=single has 1 heldout image"):
        SampleMetric(TrainedClassifier(), count=10).prepare(single, CPU)


class Brightness(Metric):
    """A metric of one's own: the mean of the first samples."""

    def prepare(self, data: Data, device: torch.device) -> PreparedMetric:
        return lambda generate: {"brightness/100": torch.cat([generate(0, 60), generate(60, 40)]).mean().item()}


@dataclass(frozen=True)
class MeanPixels(FeatureRecipe):
    """Features of one's own: the mean of each row of pixels."""

    name: str = "rows"

    def build(self, data: Data, cache: Path, device: torch.device) -> Features:
        return RowMeans(self.name, "fd", 8, "the mean of each row")


class RowMeans(Features):
    def _extract(self, images: Tensor) -> Tensor:
        return images.float().mean((1, 3))


RECIPES = {"classifier": TrainedClassifier(epochs=1, min_steps=30), "rows": MeanPixels()}


def test_several_features_and_metrics_see_the_same_samples_drawn_once(digits: ImageData, cache: str) -> None:
    images = to_float(digits.reference("train"))
    drawn: list[int] = []

    def generate(first: int, count: int) -> Tensor:
        drawn.extend(range(first, first + count))
        return images[first : first + count]

    counts = {"classifier": 200, "rows": 359}
    metric = SampleMetric(RECIPES, counts, batch=150, cache=cache, also={"brightness": Brightness()})
    values = metric.prepare(digits, CPU)(generate)
    assert drawn == list(range(359))
    alone = prepared(digits, cache, 200)(shows(images))
    assert {name: values[name] for name in alone} == alone
    (only_rows,) = [SampleMetric({"rows": MeanPixels()}, 359, batch=150, cache=cache).prepare(digits, CPU)]
    rows = only_rows(shows(images))
    assert {"fd/rows_359", "kid/rows_359"} <= rows.keys()
    assert {name: values[name] for name in rows} == rows
    assert values["brightness/100"] == images[:100].mean().item()
    assert values.keys() == alone.keys() | rows.keys() | {"brightness/100"}


def test_a_metric_of_ones_own_needs_no_features(digits: ImageData) -> None:
    images = to_float(digits.reference("train"))
    metric = SampleMetric(also={"brightness": Brightness()})
    assert metric.prepare(digits, CPU)(shows(images)) == {"brightness/100": images[:100].mean().item()}


def test_samples_that_one_of_the_features_never_sees_do_not_spoil_it(digits: ImageData, cache: str) -> None:
    images = to_float(digits.reference("train"))
    images[250, 0, 0, 0] = float("nan")
    metric = SampleMetric(RECIPES, {"classifier": 200, "rows": 359}, batch=150, cache=cache).prepare(digits, CPU)
    with pytest.warns(UserWarning, match=r"1 of the 150 samples from number 150 on are not finite: fd/rows_359"):
        values = metric(shows(images))
    assert math.isfinite(values["fd/classifier_200"])
    assert math.isnan(values["fd/rows_359"])


WRONG = {
    "metric.count.rows=null: ": {"features": RECIPES, "count": {"classifier": 100}},
    "metric.count.inception=5: there are no features inception": {
        "features": RECIPES,
        "count": {"inception": 5, "classifier": 5, "rows": 5},
    },
    "metric.count.rows=1: ": {"features": RECIPES, "count": {"classifier": 5, "rows": 1}},
    "metric.features.epochs=3: .* Write metric.features.NAME.epochs=3, with NAME one of classifier, rows": {
        "features": {**RECIPES, "epochs": 3},
        "count": 5,
    },
    "metric.batch=0": {"features": RECIPES, "count": 5, "batch": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_setting_of_several_features_is_named(message: str) -> None:
    with pytest.raises(UserError, match=message):
        SampleMetric(**WRONG[message])


def test_two_features_that_give_one_name_are_rejected(digits: ImageData, cache: str) -> None:
    metric = SampleMetric({"rows": MeanPixels(), "again": MeanPixels()}, 100, cache=cache)
    with pytest.raises(UserError, match="two of the features measure fd/rows_100"):
        metric.prepare(digits, CPU)


def test_without_a_metric_no_sample_is_drawn(digits: ImageData) -> None:
    def never(first: int, count: int) -> Tensor:
        raise AssertionError

    assert NoMetric().prepare(digits, CPU)(never) == {}


def test_every_choice_in_conf_builds(tmp_path: Path) -> None:
    built = {}
    for path in CONF.glob("*.yaml"):
        config = OmegaConf.merge({"cache": str(tmp_path)}, {"metric": OmegaConf.load(path)})
        built[path.stem] = hydra.utils.instantiate(config.metric)
    assert built.keys() == {"none", "classifier", "inception"}
    assert isinstance(built["none"], NoMetric)
    assert built["classifier"].counts == {"classifier": 1000}
    assert built["inception"].counts == {"inception": 50_000}
    assert built["inception"].cache == str(tmp_path)
