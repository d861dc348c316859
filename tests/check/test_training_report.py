"""What a target costs before it trains."""

import pytest
import torch
from catalogue import SCHEDULES, TARGETS
from torch import Tensor

from diffexp.check.training import training_report
from diffexp.schedule import Schedule
from diffexp.targets import Coefficients, Epsilon, Target
from diffexp.times import Uniform

LINEAR = SCHEDULES["linear_beta"]


class Tenfold(Target):
    """Ten times epsilon."""

    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        return Coefficients(torch.zeros_like(t), torch.full_like(t, 10.0), torch.zeros_like(t))


def test_the_step_noise_is_nearly_all_label_noise() -> None:
    """Of its loss at most 1.478 % can be learned, whatever the data: mean beta^2 / sigma^2 over mean beta."""
    found = training_report(TARGETS["step_noise"], LINEAR, Uniform())
    assert 1 - found.label_noise / found.zero_loss == pytest.approx(0.01478, abs=1e-5)
    assert training_report(TARGETS["v"], LINEAR, Uniform()).label_noise == 0


def test_rounding_is_compared_with_that_of_epsilon_x0_and_v() -> None:
    found = training_report(TARGETS["posterior_mean"], LINEAR, Uniform()).rounding
    assert list(found) == ["", "epsilon", "x0", "v"]
    assert [f"{each.x0.rms:.1g}" for each in found.values()] == ["1e+01", "0.3", "0.002", "0.002"]


def test_the_gradient_is_epsilons_for_epsilon_in_any_units() -> None:
    """The normalised loss has no units: ten times the target is ten times the gradient before it is divided."""
    assert training_report(Epsilon(), LINEAR, Uniform()).gradients == {"high": 1, "middle": 1, "low": 1}
    ratios = training_report(Tenfold(), LINEAR, Uniform()).gradients
    assert list(ratios.values()) == pytest.approx([0.1, 0.1, 0.1], rel=1e-5)


def test_the_gradient_of_the_score_is_all_at_low_noise() -> None:
    """Between bands by 1 / sigma against epsilon."""
    ratios = training_report(TARGETS["score"], LINEAR, Uniform()).gradients
    assert ratios["low"] > 5 * ratios["middle"] > 5 * ratios["high"]


def test_torchs_own_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    training_report(Epsilon(), LINEAR, Uniform())
    assert torch.equal(before, torch.get_rng_state())
