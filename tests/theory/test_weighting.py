"""Each weighting is the one in its paper."""

import pytest
import torch
from catalogue import CHAINS, SCHEDULES, every_schedule, per_image, reference, times_on
from torch.testing import assert_close

from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.targets import PosteriorMean
from diffexp.weighting import (
    P2,
    Edm,
    MinSnr,
    Sigmoid,
    Snr,
    SnrPlusOne,
    TruncatedSnr,
    Uniform,
    Vlb,
    Weighting,
    published_elsewhere,
)

# On the straight line S = ((1 - t) / t)^2: 9 at t = 0.25, 1 at t = 0.5, 1/9 at t = 0.75.
KNOWN = [
    (Uniform(), [1, 1, 1]),
    (Snr(), [9, 1, 1 / 9]),
    (TruncatedSnr(), [9, 1, 1]),  # max, not min
    (SnrPlusOne(), [10, 2, 10 / 9]),
    (MinSnr(), [5, 1, 1 / 9]),
    (MinSnr(gamma=0.5), [0.5, 0.5, 1 / 9]),
    (P2(), [1 / 10, 1 / 2, 9 / 10]),
    (P2(k=2.0, gamma=0.5), [11**-0.5, 3**-0.5, (19 / 9) ** -0.5]),
    (Sigmoid(bias=0.0), [1 / 10, 1 / 2, 9 / 10]),
    (Edm(), [13, 5, 4 + 1 / 9]),
    (Edm(sigma_data=1.0), [10, 2, 10 / 9]),
]
every_weighting = pytest.mark.parametrize("weighting", [w for w, _ in KNOWN] + [Vlb()], ids=repr)


@pytest.mark.parametrize(("weighting", "known"), KNOWN, ids=lambda x: repr(x) if not isinstance(x, list) else "")
def test_each_weighting_is_its_papers(weighting: Weighting, known: list[float]) -> None:
    t = per_image([0.25, 0.5, 0.75])
    assert_close(weighting(Rectified(), t), per_image(known), rtol=1e-12, atol=0)


def test_the_sigmoid_is_one_half_at_its_bias() -> None:
    t = per_image(Rectified().time(torch.tensor([-3.0, 2.0, 2.0])))
    assert_close(Sigmoid(bias=2.0)(Rectified(), t)[1:], per_image([0.5, 0.5]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "edm"])
def test_the_bounds_weight_is_that_of_the_reference(name: str) -> None:
    known = reference("targets")[name]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        got = Vlb()(SCHEDULES[name], per_image(known["t"], dtype)).double()
        assert_close(got, per_image(known["vlb_weight_beta"]), rtol=tolerance, atol=0)


def test_the_bounds_weight_on_ddpm_falls_and_rises_again() -> None:
    """Known by hand at the first step: 1 / (2 (1 - beta_1))."""
    weight = Vlb()(LinearBeta(), per_image([0.001, 0.349, 1.0])).flatten()
    assert_close(weight, torch.tensor([0.5 / (1 - 1e-4), 0.00497, 0.0102]), rtol=1e-2, atol=0)
    assert weight[0].item() == pytest.approx(0.5 / (1 - 1e-4), rel=1e-12)


@pytest.mark.parametrize("name", CHAINS)
def test_the_bounds_weight_is_the_divergence_between_the_two_posteriors(name: str) -> None:
    """Two normal laws of variance beta whose means differ by d are d^2 / (2 beta) nats apart."""
    schedule, t = SCHEDULES[name], times_on(SCHEDULES[name])
    mean_error = PosteriorMean().gain(schedule, t) / schedule.alpha(t)  # for an error of 1 in eps
    assert_close(Vlb()(schedule, t), mean_error**2 / (2 * schedule.step(t).beta), rtol=1e-9, atol=0)


@every_schedule
@every_weighting
def test_weights_are_positive_and_alike_in_both_precisions(schedule: Schedule, weighting: Weighting) -> None:
    exact, single = (weighting(schedule, times_on(schedule, dtype)) for dtype in (torch.float64, torch.float32))
    assert (exact > 0).all()
    assert (exact.dtype, single.dtype) == (torch.float64, torch.float32)
    assert_close(single.double(), exact, rtol=2e-4, atol=0)


def test_a_weighting_used_outside_its_papers_space_is_remarked_on() -> None:
    assert published_elsewhere(Snr(), "x0") is None
    assert published_elsewhere(Uniform(), "v") is None
    remark = published_elsewhere(Vlb(), "x0")
    assert remark is not None
    assert "Vlb" in remark
    assert "epsilon" in remark
    assert "x0" in remark


@pytest.mark.parametrize(
    ("weighting", "space"),
    [
        *((weighting, "x0") for weighting in (Snr(), TruncatedSnr(), SnrPlusOne(), MinSnr(), Edm())),
        *((weighting, "epsilon") for weighting in (P2(), Sigmoid(), Vlb())),
    ],
    ids=repr,
)
def test_weightings_know_the_space_they_were_published_for(weighting: Weighting, space: str) -> None:
    assert weighting.space == space
