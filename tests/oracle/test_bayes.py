"""The losses of the optimum, a multiple of x_t and the zero prediction, against reference values and least squares."""

import numpy as np
import pytest
import torch
from catalogue import TARGETS, every_target_and_schedule, per_image, reference, times_on
from known_data import LOG_SNR, curve, named
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.testing import assert_close

from diffexp.oracle import Gaussian
from diffexp.oracle.bayes import bayes_loss, explained_noise, linear_loss, zero_loss
from diffexp.schedule import LinearBeta, Schedule
from diffexp.targets import StepNoise, Target, UnitStepNoise

KNOWN = reference("bayes")["losses"]
CHAIN = LinearBeta()
EVERY_STEP = per_image(np.arange(1, 1001) / 1000)


def digits8_at(log_snr: Tensor) -> Tensor:
    value, _ = curve("digits8")
    return torch.as_tensor(np.exp(CubicSpline(LOG_SNR, value.log())(log_snr)))


@pytest.mark.parametrize("data", KNOWN["data"])
@pytest.mark.parametrize("target", KNOWN["data"]["gauss1d"])
def test_the_least_loss_is_that_of_the_reference(data: str, target: str) -> None:
    t = per_image(KNOWN["step"]) / 1000
    mmse, _ = named(data).bayes_eps(CHAIN.log_snr(t))
    loss = bayes_loss(TARGETS[target], CHAIN, t, mmse, dimension=1)
    assert loss.flatten().tolist() == pytest.approx(KNOWN["data"][data][target], rel=1e-9)


@pytest.mark.parametrize(
    ("target", "zero", "linear", "least"),
    [
        ("epsilon", 1, 0.2145, 0.0428),
        ("scaled_noise", 0.7245, 0.0513, 0.0101),
        ("step_noise", 0.010050, 0.009912, 0.009904),
        ("unit_step_noise", 1, 0.9892, 0.9845),
        ("x0", 0.4568, 0.3588, 0.1362),
        ("previous_sample", 0.8498, 0.010046, 0.010038),
        ("score", 32.05, 30.80, 23.80),
    ],
)
def test_digits_are_as_predictable_as_in_another_program(target: str, zero: float, linear: float, least: float) -> None:
    """Means over the steps of DDPM's chain, per dimension."""
    data = named("digits8")
    power = float(data.weights @ (data.means.square().sum(1) + data.variances.sum(1)))
    head = TARGETS[target]
    mmse = digits8_at(CHAIN.log_snr(EVERY_STEP))
    losses = (
        zero_loss(head, CHAIN, EVERY_STEP, power, 64),
        linear_loss(head, CHAIN, EVERY_STEP, power, 64),
        bayes_loss(head, CHAIN, EVERY_STEP, mmse, 64),
    )
    got = [loss.mean().item() / 64 for loss in losses]
    assert got[:2] == pytest.approx([zero, linear], rel=6e-4)
    assert got[2] == pytest.approx(least, rel=6e-3)


def test_noise_of_digits_can_be_predicted() -> None:
    t = per_image([0.001, 0.01, 0.1, 0.5, 1.0])
    explained = explained_noise(digits8_at(CHAIN.log_snr(t)), 64).flatten()
    assert explained.tolist() == pytest.approx([0.036, 0.398, 0.918, 0.985, 0.99999], abs=2e-3)


def test_step_noise_cannot_be_learned_beyond_one_part_in_seventy() -> None:
    """Whatever the data: even an x_t that determined eps exactly would leave 0.00990 of the 0.01005."""
    zero, least = (
        loss.mean().item()
        for loss in (
            zero_loss(StepNoise(), CHAIN, EVERY_STEP, 0.3, 1),
            bayes_loss(StepNoise(), CHAIN, EVERY_STEP, torch.zeros_like(EVERY_STEP), 1),
        )
    )
    assert (zero, least) == pytest.approx((0.01005, 0.00990), abs=5e-6)
    assert 1 - least / zero == pytest.approx(0.01478, abs=5e-6)


@every_target_and_schedule
def test_the_best_multiple_of_the_input_is_found_by_least_squares(target: Target, schedule: Schedule) -> None:
    power, dimension, t = 1.7, 5, times_on(schedule)
    a, b, c = target.coefficients(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    of_x = alpha**2 * power + sigma**2 * dimension
    together = a * alpha * power + b * sigma * dimension
    of_y = a**2 * power + (b**2 + c**2) * dimension
    assert_close(zero_loss(target, schedule, t, power, dimension), of_y, rtol=1e-12, atol=0)
    # The difference cancels where a target is almost x_t itself, hence the slack in units of E y^2.
    off = linear_loss(target, schedule, t, power, dimension) - (of_y - together**2 / of_x)
    assert (off.abs() <= 1e-9 * of_y).all()


@every_target_and_schedule
def test_nothing_beats_the_optimum(target: Target, schedule: Schedule) -> None:
    t, data = times_on(schedule), named("gmm1d_two")
    power = float(data.weights @ (data.means.square().sum(1) + data.variances.sum(1)))
    least = bayes_loss(target, schedule, t, data.bayes_eps(schedule.log_snr(t))[0], 1)
    linear = linear_loss(target, schedule, t, power, 1)
    assert (least <= linear * (1 + 1e-12)).all()
    assert (linear <= zero_loss(target, schedule, t, power, 1) * (1 + 1e-12)).all()


def test_white_data_leave_nothing_beyond_a_multiple_of_the_input() -> None:
    t, white = times_on(CHAIN), Gaussian(torch.zeros(1, 2, 2), 0.3 * torch.eye(4))
    mmse, _ = white.bayes_eps(CHAIN.log_snr(t))
    for target in (UnitStepNoise(), TARGETS["v"]):
        assert_close(
            bayes_loss(target, CHAIN, t, mmse, 4), linear_loss(target, CHAIN, t, 4 * 0.3, 4), rtol=1e-12, atol=0
        )
