"""A target is its coefficients: each is pinned to its paper once, and all else is algebra."""

import math

import pytest
import torch
from catalogue import (
    PAIRS,
    SCHEDULES,
    TARGETS,
    WITH_LABEL_NOISE,
    every_path,
    every_schedule,
    every_target_and_schedule,
    images,
    per_image,
    reference,
    targets_on,
    times_on,
)
from exact import Exact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from diffexp.objective import Objective
from diffexp.schedule import Chain, Cosine, LinearBeta, Rectified, Schedule
from diffexp.targets import (
    X0,
    Coefficients,
    Edm,
    Epsilon,
    Flow,
    PosteriorMean,
    PreviousSample,
    ScaledNoise,
    Score,
    StepDifference,
    StepNoise,
    Target,
    UnitStepNoise,
    V,
)

KNOWN = [(s, t) for s, known in reference("targets").items() for t in known["targets"]]


@pytest.mark.parametrize(("schedule", "target"), KNOWN, ids=[f"{t}-on-{s}" for s, t in KNOWN])
def test_coefficients_and_gain_are_those_of_the_reference(schedule: str, target: str) -> None:
    known = reference("targets")[schedule]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        t = per_image(known["t"], dtype)
        ours = [*TARGETS[target].coefficients(SCHEDULES[schedule], t)]
        ours.append(TARGETS[target].gain(SCHEDULES[schedule], t))
        for name, got in zip(("a", "b", "c", "gain"), ours, strict=True):
            assert got.dtype == dtype
            wanted = per_image(known["targets"][target][name])
            assert_close(got.double(), wanted, rtol=tolerance, atol=0, msg=lambda m: f"{name}, {dtype}: {m}")  # noqa: B023


def test_no_pair_is_left_without_a_reference_but_steps_on_edm() -> None:
    steps = [t for t in TARGETS if "step" in t] + ["posterior_mean", "previous_sample"]
    assert sorted({*PAIRS} - {*KNOWN}) == sorted(("edm", t) for t in steps)


# Two steps of beta = 0.2: alpha_bar = 0.8, then 0.64, so that alpha = 0.8 and sigma = 0.6 at t = 1.
TWO_STEPS = LinearBeta(2, beta_min=0.2, beta_max=0.2)
EDM_SKIP, EDM_OUT = 0.25 / (0.25 + 0.5625), 0.75 * 0.5 / math.sqrt(0.8125)


@pytest.mark.parametrize(
    ("target", "a", "b", "c"),
    [
        (Epsilon(), 0, 1, 0),
        (ScaledNoise(), 0, 0.6, 0),
        (X0(), 1, 0, 0),
        (Score(), 0, -1 / 0.6, 0),
        (V(), -0.6, 0.8, 0),
        (UnitStepNoise(), 0, math.sqrt(0.2) / 0.6, math.sqrt(0.8) * math.sqrt(0.2) / 0.6),
        (StepNoise(), 0, 0.2 / 0.6, math.sqrt(0.2) * math.sqrt(0.8) * math.sqrt(0.2) / 0.6),
        (StepDifference(), 0.8 - math.sqrt(0.8), 0.6 - math.sqrt(0.2), 0),
        # arXiv:2206.00364, eq. 7, where the noised image is x_t / alpha = x0 + 0.75 eps
        (Edm(), (1 - EDM_SKIP) / EDM_OUT, -EDM_SKIP * 0.75 / EDM_OUT, 0),
    ],
    ids=repr,
)
def test_each_target_is_that_of_its_paper(target: Target, a: float, b: float, c: float) -> None:
    """The tests below hold for any coefficients. This one pins which."""
    ours = target.coefficients(TWO_STEPS, per_image([1.0]))
    assert [part.item() for part in ours] == pytest.approx([a, b, c], rel=1e-12)


def test_the_posterior_is_ddpms() -> None:
    """Ho et al. 2020, eq. 7, with alpha_bar and beta as they are named there."""
    chain, k = LinearBeta(), 400
    beta, abar = chain.betas()[k - 1], (1 - chain.betas()).cumprod(0)
    now, before = abar[k - 1], abar[k - 2]
    t = per_image([k / 1000])
    x0, eps, xi = (images(seed, t) for seed in range(3))
    x_t = now.sqrt() * x0 + (1 - now).sqrt() * eps
    mean = before.sqrt() * beta / (1 - now) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - now) * x_t
    std = ((1 - before) / (1 - now) * beta).sqrt()
    assert_close(PosteriorMean().draw(chain, t, x0, eps, xi), mean, rtol=1e-10, atol=1e-10)
    assert_close(PreviousSample().draw(chain, t, x0, eps, xi), mean + std * xi, rtol=1e-10, atol=1e-10)


@every_path
def test_flow_is_the_velocity_of_the_noised_image(schedule: Schedule) -> None:
    t, h = times_on(schedule)[3:-1], 1e-6
    x0, eps = images(0, t), images(1, t)
    slope = (schedule.noised(t + h, x0, eps) - schedule.noised(t - h, x0, eps)) / (2 * h)
    assert_close(Flow().draw(schedule, t, x0, eps, 0 * x0), slope, rtol=1e-5, atol=1e-5)


def test_flow_on_the_straight_line_is_noise_minus_image() -> None:
    assert [part.item() for part in Flow().coefficients(Rectified(), per_image([0.3]))] == [-1, 1, 0]


def test_flow_on_a_chain_raises_and_suggests_v() -> None:
    with pytest.raises(ValueError, match="target=v"):
        Flow().coefficients(LinearBeta(), per_image([0.5]))


@pytest.mark.parametrize("chain", [LinearBeta(20, 0.01, 0.3), Cosine(20)], ids=repr)
@pytest.mark.parametrize("k", [2, 7, 19])
def test_targets_are_what_happens_on_the_chain_itself(chain: Chain, k: int) -> None:
    """Walk x0 -> x_s -> x_t with new noise, then regress each target by its definition on (x0, eps)."""
    count = 200_000
    abar = float((1 - chain.betas()[: k - 1]).prod())
    beta = float(chain.betas()[k - 1])
    x0, before, z = torch.randn(3, count)
    x_s = abar**0.5 * x0 + (1 - abar) ** 0.5 * before
    x_t = (1 - beta) ** 0.5 * x_s + beta**0.5 * z
    alpha = (abar * (1 - beta)) ** 0.5
    eps = (x_t - alpha * x0) / (1 - alpha**2) ** 0.5
    walked = {UnitStepNoise(): z, StepNoise(): beta**0.5 * z, PreviousSample(): x_s, V(): alpha * eps}
    walked[V()] -= (1 - alpha**2) ** 0.5 * x0
    causes, t = torch.stack([x0, eps], 1), per_image([k / chain.steps])
    for target, y in walked.items():
        a, b, c = (part.item() for part in target.coefficients(chain, t))
        fit = torch.linalg.lstsq(causes, y[:, None]).solution.flatten()
        left = y - causes @ fit
        slack = 5 * (c + 1e-9) / count**0.5
        assert fit.tolist() == pytest.approx([a, b], abs=slack), target
        assert left.std().item() == pytest.approx(c, abs=slack), target


def test_the_first_step_has_no_label_noise() -> None:
    for name in WITH_LABEL_NOISE:
        _, b, c = TARGETS[name].coefficients(LinearBeta(), per_image([0.001]))
        assert c.item() == 0
        assert b.item() == pytest.approx({"unit_step_noise": 1, "step_noise": 0.01, "previous_sample": 0}[name])


@every_target_and_schedule
def test_solving_recovers_what_was_mixed(schedule: Schedule, target: Target) -> None:
    """On average over xi and -xi, so over xi."""
    t = times_on(schedule)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    x_t = schedule.noised(t, x0, eps)
    one, other = (target.solve(schedule, t, x_t, target.draw(schedule, t, x0, eps, noise)) for noise in (xi, -xi))
    slack = 1e-12 * (1 + 1 / target.gain(schedule, t).abs())
    assert (((one.x0 + other.x0) / 2 - x0).abs() < slack * 100).all()
    assert (((one.eps + other.eps) / 2 - eps).abs() < slack * 100).all()
    assert_close((one.score + other.score) / 2, -eps / schedule.sigma(t), rtol=1e-7, atol=1e-7)


@every_target_and_schedule
def test_xi_changes_the_targets_with_label_noise_alone(schedule: Schedule, target: Target) -> None:
    t = times_on(schedule)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    change = target.draw(schedule, t, x0, eps, xi) - target.draw(schedule, t, x0, eps, 0 * xi)
    assert_close(change, target.coefficients(schedule, t).c * xi, rtol=1e-6, atol=1e-12)
    assert change.any() == (target in [TARGETS[name] for name in WITH_LABEL_NOISE])


@every_target_and_schedule
def test_an_estimate_agrees_with_itself(schedule: Schedule, target: Target) -> None:
    """alpha x0 + sigma eps = x_t and score = -eps / sigma, whatever the network predicts."""
    t = times_on(schedule)
    x_t, y = images(0, t), images(1, t)
    estimate = target.solve(schedule, t, x_t, y)
    scale = 1 + schedule.alpha(t) * estimate.x0.abs()
    assert ((schedule.noised(t, estimate.x0, estimate.eps) - x_t).abs() < 1e-12 * scale).all()
    assert_close(estimate.score, -estimate.eps / schedule.sigma(t), rtol=1e-12, atol=0)


@every_schedule
def test_spaces_differ_by_their_gains(schedule: Schedule) -> None:
    t = times_on(schedule)
    x_t, guess, truth = (images(seed, t) for seed in range(3))
    everyone = targets_on(schedule).values()
    coefficients = {space: space.coefficients(schedule, t) for space in everyone}
    gains = {space: space.gain(schedule, t) for space in everyone}
    for target in everyone:
        ours, theirs = (target.solve(schedule, t, x_t, y) for y in (guess, truth))
        for space, (a, b, _) in coefficients.items():
            error = a * (ours.x0 - theirs.x0) + b * (ours.eps - theirs.eps)
            size = (a * (ours.x0.abs() + theirs.x0.abs())).abs() + (b * (ours.eps.abs() + theirs.eps.abs())).abs()
            wanted = gains[space] / gains[target] * (guess - truth)
            assert ((error - wanted).abs() <= 1e-9 * size).all(), (target, space)


@every_target_and_schedule
def test_the_score_points_uphill(schedule: Schedule, target: Target) -> None:
    """For x0 ~ N(0.5, 0.25) it is the slope of the log density of x_t."""
    t = times_on(schedule)
    exact, x_t = Exact(schedule, target, 0.5, 0.25), images(0, t)
    slope = -(x_t - schedule.alpha(t) * 0.5) / exact.spread(t)
    assert_close(exact(x_t, t).score, slope, rtol=1e-6, atol=1e-6)


@every_schedule
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_time_converts_there_and_back(schedule: Schedule, data: st.DataObject) -> None:
    """Away from the grid and close to the ends too."""
    low = 2 / 1000 if schedule.is_chain else 1e-4
    t = per_image([data.draw(st.floats(low, 1 - 1e-4))])
    x0, eps = images(0, t), images(1, t)
    for target in targets_on(schedule).values():
        estimate = target.solve(schedule, t, schedule.noised(t, x0, eps), target.draw(schedule, t, x0, eps, 0 * x0))
        slack = 1e-11 * (1 + 1 / target.gain(schedule, t).abs())
        assert ((estimate.x0 - x0).abs() < slack).all(), target
        assert ((estimate.eps - eps).abs() < slack).all(), target


@pytest.mark.parametrize("steps", [3, 10, 50, 100, 333, 1000])
@pytest.mark.parametrize("target", [t for t in TARGETS.values() if t != Flow()], ids=repr)
def test_float32_grid_times_are_grid_times_to_every_target(target: Target, steps: int) -> None:
    """0.02 as float32 lies before the first of 50 steps."""
    chain = LinearBeta(steps)
    exact = per_image([k / steps for k in range(1, steps + 1)])
    single, x, y = (
        exact.float(),
        torch.ones(steps, 1, 1, 1).float(),
        torch.full((steps, 1, 1, 1), 0.3).float(),
    )
    assert torch.equal(target.gain(chain, single), target.gain(chain, exact).float())
    assert_close(target.solve(chain, single, x, y), target.solve(chain, exact, x, y), rtol=0, atol=0)


@every_target_and_schedule
def test_images_keep_their_dtype(schedule: Schedule, target: Target) -> None:
    """And the conversion's factors come from float64, so that only the images' own digits are lost."""
    t = times_on(schedule)
    for dtype in (torch.float32, torch.bfloat16):
        x_t, y = images(0, t).to(dtype), images(1, t).to(dtype)
        assert target.draw(schedule, t, x_t, y, y).dtype == dtype
        estimate, exact = (target.solve(schedule, t, *pair) for pair in ((x_t, y), (x_t.double(), y.double())))
        a, b, _ = target.coefficients(schedule, t)
        gain = target.gain(schedule, t).abs()
        size = 2 * torch.finfo(dtype).eps * (x_t.abs().amax() + y.abs().amax())
        assert [part.dtype for part in estimate] == [dtype] * 3
        assert ((estimate.x0 - exact.x0).abs() <= size * (b.abs() + schedule.sigma(t)) / gain).all()
        assert ((estimate.eps - exact.eps).abs() <= size * (a.abs() + schedule.alpha(t)) / gain).all()


@pytest.mark.parametrize("target", [V(), Flow(), X0(), Edm(), PosteriorMean(), ScaledNoise(), Score()], ids=repr)
def test_at_the_very_end_targets_that_know_the_image_still_do(target: Target) -> None:
    """alpha = 0 at t = 1 of the straight line: those with an a can be converted, the others cannot."""
    t = per_image([1.0])
    x0, eps = images(0, t), images(1, t)
    estimate = target.solve(Rectified(), t, eps, target.draw(Rectified(), t, x0, eps, 0 * x0))
    if isinstance(target, ScaledNoise | Score):
        assert target.gain(Rectified(), t).item() == 0
        assert not estimate.x0.isfinite().any()
    else:
        assert_close((estimate.x0, estimate.eps), (x0, eps))


class Sum(Target):
    """A person's own target, a plain class with nothing but its coefficients."""

    def coefficients(self, schedule: Schedule, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(2 * one, one * 3, one * 0.5)


def test_a_target_of_ones_own_needs_only_its_coefficients() -> None:
    t = per_image([0.25, 0.5])
    x0, eps, xi = (images(seed, t) for seed in range(3))
    y = Sum().draw(Rectified(), t, x0, eps, xi)
    assert_close(y, 2 * x0 + 3 * eps + 0.5 * xi)
    assert_close(Sum().gain(Rectified(), t), per_image([3 * 0.75 - 2 * 0.25, 3 * 0.5 - 2 * 0.5]))
    estimate = Sum().solve(Rectified(), t, Rectified().noised(t, x0, eps), 2 * x0 + 3 * eps)
    assert_close((estimate.x0, estimate.eps), (x0, eps))
    loss = Objective(Sum(), X0()).of_prediction(eps, Rectified(), x0, t, eps, xi)
    error = (eps - y) * t / Sum().gain(Rectified(), t)
    assert_close(loss, error.square().mean((1, 2, 3), keepdim=True))
