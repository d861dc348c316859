"""Correct targets pass; each mistake fails a check, with its reason."""

import math

import pytest
import torch
from catalogue import PAIRS, SCHEDULES, TARGETS
from torch import Tensor

from diffexp.check.target import TargetReport, check_target
from diffexp.schedule import Schedule
from diffexp.shapes import require_per_image
from diffexp.targets import Coefficients, Epsilon, Estimate, Score, StepNoise, Target, V
from diffexp.times import Uniform

T_START = {"cosine_cont": 0.999, "rectified": 0.999}
"""As in conf/schedule."""
LINEAR, RECTIFIED = SCHEDULES["linear_beta"], SCHEDULES["rectified"]


def failed(found: TargetReport) -> dict[str, str]:
    assert found.undefined is None
    return {result.name: result.message for result in found.results if result.verdict == "FAILED"}


def result_of(found: TargetReport, name: str) -> tuple[str, str]:
    (result,) = (result for result in found.results if result.name == name)
    return result.verdict, result.message


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_built_in_target_passes_every_check(name: str) -> None:
    for word in (target for schedule, target in PAIRS if schedule == name):
        found = check_target(TARGETS[word], SCHEDULES[name], Uniform(), T_START.get(name, 1.0))
        assert (word, failed(found)) == (word, {})
        assert len(found.results) == 10


def test_a_target_that_does_not_exist_on_a_schedule_gives_its_own_reason() -> None:
    found = check_target(TARGETS["flow"], LINEAR, Uniform())
    assert found.undefined
    assert "Take target=v" in found.undefined
    assert (found.results, found.passed) == ((), True)


class ImageMinusNoise(Target):
    """The example that the wrong ones below are made from, each by one mistake."""

    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        return Coefficients(torch.ones_like(t), -torch.ones_like(t), torch.zeros_like(t))


class AnotherDraw(ImageMinusNoise):
    def draw(self, schedule: Schedule, t: Tensor, x0: Tensor, eps: Tensor, xi: Tensor) -> Tensor:
        require_per_image(t, x0)
        return x0 - 0.999 * eps


class OwnNoise(StepNoise):
    """Its labels have the right mean and variance, and noise that no other run sees."""

    def draw(self, schedule: Schedule, t: Tensor, x0: Tensor, eps: Tensor, xi: Tensor) -> Tensor:
        return super().draw(schedule, t, x0, eps, torch.randn_like(xi))


class ClippedDraw(ImageMinusNoise):
    def draw(self, schedule: Schedule, t: Tensor, x0: Tensor, eps: Tensor, xi: Tensor) -> Tensor:
        return super().draw(schedule, t, x0, eps, xi).clamp(-1, 1)


class SingleDraw(V):
    def draw(self, schedule: Schedule, t: Tensor, x0: Tensor, eps: Tensor, xi: Tensor) -> Tensor:
        return super().draw(schedule, t, x0.float(), eps.float(), xi.float()).to(x0.dtype)


class DoubleDraw(ImageMinusNoise):
    def draw(self, schedule: Schedule, t: Tensor, x0: Tensor, eps: Tensor, xi: Tensor) -> Tensor:
        require_per_image(t, x0)
        return (x0 - eps) * torch.ones_like(t)


class ForgottenSign(ImageMinusNoise):
    def gain(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.alpha(t) + schedule.sigma(t)


class HalfSolved(ImageMinusNoise):
    def solve(self, schedule: Schedule, t: Tensor, x_t: Tensor, y: Tensor) -> Estimate:
        x0, eps, score = super().solve(schedule, t, x_t, y)
        return Estimate(x0.clamp(-1, 1), eps, score)


class ScoreOfUnitNoise(ImageMinusNoise):
    def solve(self, schedule: Schedule, t: Tensor, x_t: Tensor, y: Tensor) -> Estimate:
        x0, eps, _ = super().solve(schedule, t, x_t, y)
        return Estimate(x0, eps, -eps)


class OneDimensional(ImageMinusNoise):
    """Guards nothing."""

    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(t), -torch.ones_like(t), torch.zeros_like(t))


class Flat(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        one = torch.ones(len(t), dtype=t.dtype)
        return Coefficients(one, -one, 0 * one)


class Single(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        half = torch.full(t.shape, 0.5, dtype=torch.float32)
        return Coefficients(half, schedule.sigma(t), torch.zeros_like(t))


class Plain(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        return Coefficients(1.0, -torch.ones_like(t), torch.zeros_like(t))  # pyright: ignore


class Bare(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        return tuple(super().coefficients(schedule, t))  # pyright: ignore


class Hole(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        b = torch.where((t > 0.3005) & (t < 0.3045), torch.nan, -torch.ones_like(t))
        return Coefficients(torch.ones_like(t), b, torch.zeros_like(t))


class Overflow(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        return Coefficients(torch.zeros_like(t), (200 * t).exp(), torch.zeros_like(t))


class BatchScaled(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        return Coefficients(t / t.max(), -torch.ones_like(t), torch.zeros_like(t))


class Sum(ImageMinusNoise):
    """D = alpha - sigma."""

    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        require_per_image(t)
        return Coefficients(torch.ones_like(t), torch.ones_like(t), torch.zeros_like(t))


class Repeat(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        return Coefficients(schedule.alpha(t), schedule.sigma(t), torch.zeros_like(t))


class Crash(ImageMinusNoise):
    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        return self.missing(t)  # pyright: ignore


def test_what_the_wrong_ones_are_made_from_is_right() -> None:
    for name, schedule in SCHEDULES.items():
        assert failed(check_target(ImageMinusNoise(), schedule, Uniform(), T_START.get(name, 1.0))) == {}


@pytest.mark.parametrize(
    ("wrong", "first", "words"),
    [
        (AnotherDraw(), "draw", "draw(0, eps, 0) is not b eps: relative error 0.00"),
        (OwnNoise(), "draw", "derive all randomness from xi"),
        (ClippedDraw(), "draw", "draw(x0, 0, 0) is not a x0"),
        (SingleDraw(), "draw", "draw(x0, 0, 0) is not a x0: relative error"),
        (DoubleDraw(), "draw", "draw returns torch.float64 for float32 images"),
        (ForgottenSign(), "gain", "gain is not alpha b - sigma a: relative error 2"),
        (HalfSolved(), "round trip", "does not return x0"),
        (ScoreOfUnitNoise(), "solve", "the score is not -eps / sigma"),
        (Flat(), "coefficients", "a has shape (1000,) for times of shape (1000, 1, 1, 1)"),
        (Single(), "coefficients", "a is torch.float32 for times in torch.float64"),
        (Plain(), "coefficients", "a is 1.0, not a tensor: for a constant write torch.full_like(t, 1.0)"),
        (Bare(), "coefficients", "returns a tuple: return Coefficients(a, b, c)"),
        (Hole(), "coefficients", "b is nan at t = 0.301 (log-SNR -0.43)"),
        (Overflow(), "coefficients", "b is inf in float32 at t = 0.444"),
        (BatchScaled(), "coefficients", "a depends on the other times of the batch"),
        (Sum(), "invertible", "at t = 0.26 (log-SNR -0.00954) the target does not determine x0 and eps, between times"),
        (Repeat(), "invertible", "at any time: gain = alpha b - sigma a is 0"),
        (Crash(), "coefficients", "AttributeError: 'Crash' object has no attribute 'missing' (test_target.py,"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Target) else "",
)  # fmt: skip
def test_each_mistake_fails_with_its_reason(wrong: Target, first: str, words: str) -> None:
    found = failed(check_target(wrong, LINEAR, Uniform()))
    assert next(iter(found)) == first
    assert words in found[first]


def test_a_one_dimensional_time_must_raise_and_the_guard_is_named() -> None:
    found = failed(check_target(OneDimensional(), RECTIFIED, Uniform(), 0.999))
    assert list(found) == ["time shape"]
    assert "coefficients accepts a 1-D time" in found["time shape"]
    assert "require_per_image(t)" in found["time shape"]


def test_a_mistake_in_a_gain_is_found_in_the_losses_too() -> None:
    """Computed in another space, an error e costs (D_space / D)^2 e^2."""

    class Doubled(V):
        def gain(self, schedule: Schedule, t: Tensor) -> Tensor:
            return 2 * super().gain(schedule, t)

    found = check_target(Doubled(), LINEAR, Uniform())
    assert list(failed(found)) == ["gain", "loss spaces"]
    (losses,) = (result for result in found.results if result.name == "loss spaces")
    assert losses.value == pytest.approx(0.75)


def test_what_cancels_in_float32_is_a_note() -> None:
    class Cancelling(ImageMinusNoise):
        def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
            a = 1 - schedule.alpha(t).square()
            return Coefficients(a / schedule.sigma(t).square(), torch.zeros_like(t), torch.zeros_like(t))

    found = check_target(Cancelling(), SCHEDULES["cosine_cont"], Uniform(), 0.999)
    verdict, words = result_of(found, "coefficients")
    assert verdict == "note"
    assert "at t = 0.00" in words
    assert found.passed


@pytest.mark.parametrize(
    ("times", "t_start", "words"),
    [
        (Uniform(), 0.999, "times.t_max=0.999 and sampling.t_start=0.999 avoid it"),
        (Uniform(), 1.0, "set sampling.t_start=0.999"),
        (Uniform(t_max=1.0), 0.999, "set times.t_max=0.999"),
        (Uniform(t_max=1.0), 1.0, "set times.t_max=0.999 sampling.t_start=0.999"),
    ],
)
def test_a_singular_end_is_a_note_with_the_settings_that_avoid_it(times: Uniform, t_start: float, words: str) -> None:
    found = check_target(Epsilon(), RECTIFIED, times, t_start)
    verdict, message = result_of(found, "invertible")
    assert (verdict, found.passed) == ("note", True)
    assert message.startswith("at t = 1 (log-SNR -inf) the target does not determine x0 and eps")
    assert message.endswith(words)


def test_one_side_of_a_gain_that_changes_sign_passes() -> None:
    found = check_target(Sum(), RECTIFIED, Uniform(t_max=0.49), 0.49)
    assert failed(found) == {}
    assert result_of(found, "invertible") == (
        "note",
        "at t = 0.5 (log-SNR 0) the target does not determine x0 and eps; times.t_max=0.49 and sampling.t_start=0.49 "
        "avoid it",
    )


def test_a_coefficient_that_is_infinite_at_the_earliest_time_fails() -> None:
    """-eps / sigma at t = 0."""
    found = check_target(Score(), RECTIFIED, Uniform(t_min=0.0), 0.999)
    assert "b is -inf at t = 0" in failed(found)["coefficients"]


def test_xi_is_mentioned_where_there_is_label_noise() -> None:
    _, message = result_of(check_target(StepNoise(), LINEAR, Uniform()), "draw")
    assert "+ c xi" in message
    _, message = result_of(check_target(V(), LINEAR, Uniform()), "draw")
    assert "xi" not in message


def test_a_wrong_number_is_given_with_the_time_at_which_it_is_worst() -> None:
    """The gain with its sign forgotten is off by twice itself, everywhere; half of it where it is largest."""

    class Late(ImageMinusNoise):
        def gain(self, schedule: Schedule, t: Tensor) -> Tensor:
            return super().gain(schedule, t) * torch.where(t > 0.9995, 1.25, 1.0)

    found = check_target(Late(), LINEAR, Uniform())
    (gain,) = (result for result in found.results if result.name == "gain")
    assert gain.value is not None
    assert math.isclose(gain.value, 0.25)
    assert "at t = 1 (log-SNR -10.1)" in gain.message
