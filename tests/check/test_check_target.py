"""Targets that are right pass; each way of being wrong is found and told by its reason."""

import math

import pytest
import torch
from catalogue import PAIRS, SCHEDULES, TARGETS
from torch import Tensor

from diffexp.check.target import Examination, examine
from diffexp.schedule import Schedule
from diffexp.shapes import require_per_image
from diffexp.targets import Coefficients, Epsilon, Estimate, Score, StepNoise, Target, V
from diffexp.times import Uniform

T_START = {"cosine_cont": 0.999, "rectified": 0.999}
"""As in conf/schedule."""
LINEAR, RECTIFIED = SCHEDULES["linear_beta"], SCHEDULES["rectified"]


def failed(found: Examination) -> dict[str, str]:
    assert found.absent is None
    return {proof.name: proof.said for proof in found.proofs if proof.verdict == "FAILED"}


def said(found: Examination, name: str) -> tuple[str, str]:
    (proof,) = (proof for proof in found.proofs if proof.name == name)
    return proof.verdict, proof.said


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_proof_holds_of_every_built_in_target(name: str) -> None:
    for word in (target for schedule, target in PAIRS if schedule == name):
        found = examine(TARGETS[word], SCHEDULES[name], Uniform(), T_START.get(name, 1.0))
        assert (word, failed(found)) == (word, {})
        assert len(found.proofs) == 10


def test_a_target_that_means_nothing_on_a_schedule_is_absent_in_its_own_words() -> None:
    found = examine(TARGETS["flow"], LINEAR, Uniform())
    assert found.absent
    assert "Take target=v" in found.absent
    assert (found.proofs, found.holds) == ((), True)


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
        assert failed(examine(ImageMinusNoise(), schedule, Uniform(), T_START.get(name, 1.0))) == {}


@pytest.mark.parametrize(
    ("wrong", "first", "words"),
    [
        (AnotherDraw(), "draw", "draw(0, eps, 0) is not b eps: relative error 0.00"),
        (OwnNoise(), "draw", "take all that is random from xi"),
        (ClippedDraw(), "draw", "draw(x0, 0, 0) is not a x0"),
        (SingleDraw(), "draw", "draw(x0, 0, 0) is not a x0: relative error"),
        (DoubleDraw(), "draw", "draw makes torch.float64 of float32 images"),
        (ForgottenSign(), "gain", "gain is not alpha b - sigma a: relative error 2"),
        (HalfSolved(), "round trip", "does not give x0 back"),
        (ScoreOfUnitNoise(), "solve", "the score is not -eps / sigma"),
        (Flat(), "coefficients", "a has shape (1000,) for times of shape (1000, 1, 1, 1)"),
        (Single(), "coefficients", "a is torch.float32 for times in torch.float64"),
        (Plain(), "coefficients", "a is 1.0 and no tensor: for a constant write torch.full_like(t, 1.0)"),
        (Bare(), "coefficients", "gives a tuple: return Coefficients(a, b, c)"),
        (Hole(), "coefficients", "b is nan at t = 0.301 (log-SNR -0.43)"),
        (Overflow(), "coefficients", "b is inf in float32 at t = 0.444"),
        (BatchScaled(), "coefficients", "a at a time changes with the other times of the batch"),
        (Sum(), "invertible", "at t = 0.26 (log-SNR -0.00954) the answer says nothing about x0 or eps, between times"),
        (Repeat(), "invertible", "at any time: gain = alpha b - sigma a is 0"),
        (Crash(), "coefficients", "AttributeError: 'Crash' object has no attribute 'missing' (test_examination.py,"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Target) else "",
)  # fmt: skip
def test_each_mistake_is_told_by_its_reason(wrong: Target, first: str, words: str) -> None:
    found = failed(examine(wrong, LINEAR, Uniform()))
    assert next(iter(found)) == first
    assert words in found[first]


def test_a_one_dimensional_time_must_be_refused_and_the_guard_is_named() -> None:
    found = failed(examine(OneDimensional(), RECTIFIED, Uniform(), 0.999))
    assert list(found) == ["time shape"]
    assert "coefficients takes a 1-D time" in found["time shape"]
    assert "require_per_image(t)" in found["time shape"]


def test_a_mistake_in_a_gain_is_found_in_the_losses_too() -> None:
    """Paid in another space, an error e costs (D_space / D)^2 e^2."""

    class Doubled(V):
        def gain(self, schedule: Schedule, t: Tensor) -> Tensor:
            return 2 * super().gain(schedule, t)

    found = examine(Doubled(), LINEAR, Uniform())
    assert list(failed(found)) == ["gain", "loss spaces"]
    (losses,) = (proof for proof in found.proofs if proof.name == "loss spaces")
    assert losses.value == pytest.approx(0.75)


def test_what_cancels_in_float32_is_a_note() -> None:
    class Cancelling(ImageMinusNoise):
        def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
            a = 1 - schedule.alpha(t).square()
            return Coefficients(a / schedule.sigma(t).square(), torch.zeros_like(t), torch.zeros_like(t))

    found = examine(Cancelling(), SCHEDULES["cosine_cont"], Uniform(), 0.999)
    verdict, words = said(found, "coefficients")
    assert verdict == "note"
    assert "at t = 0.00" in words
    assert found.holds


@pytest.mark.parametrize(
    ("times", "t_start", "words"),
    [
        (Uniform(), 0.999, "times.t_max=0.999 and sampling.t_start=0.999 keep off it"),
        (Uniform(), 1.0, "set sampling.t_start=0.999"),
        (Uniform(t_max=1.0), 0.999, "set times.t_max=0.999"),
        (Uniform(t_max=1.0), 1.0, "set times.t_max=0.999 sampling.t_start=0.999"),
    ],
)
def test_an_end_that_says_nothing_is_a_note_with_what_keeps_off_it(times: Uniform, t_start: float, words: str) -> None:
    found = examine(Epsilon(), RECTIFIED, times, t_start)
    verdict, told = said(found, "invertible")
    assert (verdict, found.holds) == ("note", True)
    assert told.startswith("at t = 1 (log-SNR -inf) the answer says nothing about x0 or eps")
    assert told.endswith(words)


def test_one_side_of_a_turning_gain_can_be_had() -> None:
    found = examine(Sum(), RECTIFIED, Uniform(t_max=0.49), 0.49)
    assert failed(found) == {}
    assert said(found, "invertible") == (
        "note",
        "at t = 0.5 (log-SNR 0) the answer says nothing about x0 or eps; times.t_max=0.49 and sampling.t_start=0.49 "
        "keep off it",
    )


def test_an_infinite_start_is_kept_off_by_the_earliest_time() -> None:
    """-eps / sigma at t = 0."""
    found = examine(Score(), RECTIFIED, Uniform(t_min=0.0), 0.999)
    assert "b is -inf at t = 0" in failed(found)["coefficients"]


def test_mean_and_variance_over_xi_are_measured_where_there_is_xi() -> None:
    _, told = said(examine(StepNoise(), LINEAR, Uniform()), "draw")
    assert "standard errors" in told
    _, told = said(examine(V(), LINEAR, Uniform()), "draw")
    assert "xi" not in told


def test_a_wrong_number_is_given_with_the_time_at_which_it_is_worst() -> None:
    """The gain with its sign forgotten is off by twice itself, everywhere; half of it where it is largest."""

    class Late(ImageMinusNoise):
        def gain(self, schedule: Schedule, t: Tensor) -> Tensor:
            return super().gain(schedule, t) * torch.where(t > 0.9995, 1.25, 1.0)

    found = examine(Late(), LINEAR, Uniform())
    (proof,) = (proof for proof in found.proofs if proof.name == "gain")
    assert proof.value is not None
    assert math.isclose(proof.value, 0.25)
    assert "at t = 1 (log-SNR -10.1)" in proof.said
