"""What a loss measures: one error, whatever is predicted, in any space."""

import numpy as np
import pytest
import torch
from catalogue import (
    CHAINS,
    SCHEDULES,
    TARGETS,
    VARIANCE_PRESERVING,
    WITH_LABEL_NOISE,
    every_chain,
    every_schedule,
    every_target_and_schedule,
    images,
    per_image,
    targets_on,
    times_on,
)
from exact import Exact
from scipy.stats import norm
from torch import Tensor, nn
from torch.testing import assert_close

from diffexp.denoiser import Denoiser
from diffexp.objective import Objective, effective_weight, zero_prediction_loss
from diffexp.schedule import Chain, LinearBeta, Rectified, Schedule
from diffexp.targets import X0, Edm, Epsilon, ScaledNoise, Score, StepNoise, Target, UnitStepNoise, V
from diffexp.times import LogitNormal, LogNormal, Times, Uniform
from diffexp.weighting import Edm as EdmWeight
from diffexp.weighting import MinSnr, Snr, SnrPlusOne, TruncatedSnr, Vlb


def test_the_loss_is_the_weighted_mean_square() -> None:
    """By hand: x_t = 0.75 * 2 + 0.25 * 4 = 2.5; the network predicts 2.5 where x0 = 2; S = 9."""
    t, two, four = per_image([0.25]), torch.full((1, 2, 1, 1), 2.0), torch.full((1, 2, 1, 1), 4.0)
    denoiser = Denoiser(Parrot(), Rectified(), X0())
    assert Objective(X0())(denoiser, two, t, four, two).item() == pytest.approx(0.5**2)
    assert Objective(X0(), weighting=Snr())(denoiser, two, t, four, two).item() == pytest.approx(9 * 0.5**2)
    assert Objective(X0(), Epsilon())(denoiser, two, t, four, two).item() == pytest.approx((3 * 0.5) ** 2)
    assert Objective(X0(), Score())(denoiser, two, t, four, two).item() == pytest.approx((12 * 0.5) ** 2)


class Parrot(nn.Module):
    """Answers with the noised image."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


class Insider(nn.Module):
    """A network that has the clean image and predicts any target as well as that allows."""

    def __init__(self, target: Target, schedule: Schedule, x0: Tensor) -> None:
        super().__init__()
        self.target, self.schedule, self.x0 = target, schedule, x0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        eps = (x_t - self.schedule.alpha(t) * self.x0) / self.schedule.sigma(t)
        return self.target.draw(self.schedule, t, self.x0, eps, torch.zeros_like(eps))


@every_target_and_schedule
def test_given_the_image_the_label_noise_alone_is_left(schedule: Schedule, target: Target) -> None:
    """So the noise in x_t and the noise in the label are one, and the label of x0 is x0, not x_t."""
    t = times_on(schedule)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    denoiser = Denoiser(Insider(target, schedule, x0), schedule, target)
    loss = Objective(target)(denoiser, x0, t, eps, xi)
    noise = target.coefficients(schedule, t).c ** 2 * xi.square().mean((1, 2, 3), keepdim=True)
    scale = target.draw(schedule, t, x0, eps, xi).square().mean((1, 2, 3), keepdim=True)
    assert ((loss - noise).abs() <= 1e-9 * (scale * noise).sqrt() + 1e-20 * scale).all()


@every_schedule
def test_paying_in_another_space_is_converting_first_gradients_included(schedule: Schedule) -> None:
    """All pairs: the one factor against the squared error of the converted prediction and label."""
    t = times_on(schedule)
    x0, eps, xi, guess = (images(seed, t) for seed in range(4))
    x_t = schedule.noised(t, x0, eps)
    spaces = [(space, *space.coefficients(schedule, t)) for space in targets_on(schedule).values()]
    for target, *_ in spaces:
        label = target.draw(schedule, t, x0, eps, xi)
        prediction = (label + 0.1 * label.std() * guess).requires_grad_()
        predicted, exact = (target.solve(schedule, t, x_t, y) for y in (prediction, label))
        for space, a, b, _ in spaces:
            ours = Objective(target, space).of_prediction(prediction, schedule, x0, t, eps, xi)
            error = a * (predicted.x0 - exact.x0) + b * (predicted.eps - exact.eps)
            explicit = error.square().mean((1, 2, 3), keepdim=True)
            slope, wanted = (
                torch.autograd.grad(loss.sum(), prediction, retain_graph=True)[0] for loss in (ours, explicit)
            )
            size = wanted.abs().amax((1, 2, 3), keepdim=True)
            assert ((ours - explicit).abs() <= 1e-5 * explicit).all(), (target, space)
            assert ((slope - wanted).abs() <= 1e-5 * size).all(), (target, space)


@every_schedule
def test_equal_predictions_have_equal_losses(schedule: Schedule) -> None:
    """The same exact denoiser as each target without label noise has the same loss in any one space."""
    t = times_on(schedule)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    compared = [target for name, target in targets_on(schedule).items() if name not in WITH_LABEL_NOISE]
    for space in (Epsilon(), X0(), V()):
        first, *others = (
            Objective(target, space)(Exact(schedule, target, 0.5, 0.25), x0, t, eps, xi) for target in compared
        )
        for target, loss in zip(compared[1:], others, strict=True):
            assert_close(loss, first, rtol=1e-6, atol=0, msg=lambda m: f"{target} in {space}: {m}")  # noqa: B023


@every_target_and_schedule
def test_the_eps_weight_does_not_depend_on_who_speaks(schedule: Schedule, target: Target) -> None:
    t = times_on(schedule)
    for space, weighting in ((Epsilon(), Vlb()), (X0(), TruncatedSnr()), (Score(), Snr())):
        ours = Objective(target, space, weighting).eps_weight(schedule, t)
        theirs = Objective(space, None, weighting).eps_weight(schedule, t)
        assert_close(ours, theirs, rtol=1e-8, atol=0)


@every_schedule
@pytest.mark.parametrize("target", [X0(), Epsilon(), V(), UnitStepNoise()], ids=repr)
def test_snr_in_x0_space_is_uniform_in_eps_space(schedule: Schedule, target: Target) -> None:
    t = times_on(schedule)
    assert_close(Objective(target, X0(), Snr()).eps_weight(schedule, t), torch.ones_like(t), rtol=1e-8, atol=0)
    assert_close(Objective(target, X0(), Snr()).scale(schedule, t), Objective(target, Epsilon()).scale(schedule, t))


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_snr_plus_one_in_x0_space_is_the_plain_v_loss_where_variance_is_preserved(name: str) -> None:
    schedule, t = SCHEDULES[name], times_on(SCHEDULES[name])
    ours = Objective(X0(), weighting=SnrPlusOne()).eps_weight(schedule, t)
    assert_close(ours, Objective(V()).eps_weight(schedule, t), rtol=1e-8, atol=0)


@every_schedule
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edms_weight_in_x0_space_is_the_plain_loss_of_f(schedule: Schedule, sigma_data: float) -> None:
    t = times_on(schedule)
    ours = Objective(V(), X0(), EdmWeight(sigma_data)).eps_weight(schedule, t)
    assert_close(ours, Objective(Edm(sigma_data)).eps_weight(schedule, t), rtol=1e-8, atol=0)


@every_schedule
def test_min_snr_in_x0_space_is_min_one_and_gamma_over_snr_on_eps(schedule: Schedule) -> None:
    t = times_on(schedule)
    wanted = (5 * (-schedule.log_snr(t)).exp()).clamp(max=1)
    assert_close(Objective(X0(), None, MinSnr()).eps_weight(schedule, t), wanted, rtol=1e-8, atol=0)


@every_chain
def test_plain_unit_step_noise_is_the_variational_bound_but_for_one_minus_beta(schedule: Chain) -> None:
    t = per_image(torch.arange(1, 1001) / 1000)
    beta = per_image(schedule.betas())
    plain = Objective(UnitStepNoise()).eps_weight(schedule, t)
    assert_close(plain, 2 * (1 - beta) * Vlb()(schedule, t), rtol=1e-10, atol=0)
    assert_close(plain, beta / schedule.sigma(t) ** 2, rtol=1e-10, atol=0)
    assert_close(Objective(StepNoise()).eps_weight(schedule, t), beta * plain, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("target", "shares"),
    [
        ("epsilon", [0.010, 0.090, 0.400, 0.400, 0.100]),
        ("scaled_noise", [0.000, 0.005, 0.314, 0.543, 0.138]),
        ("unit_step_noise", [0.174, 0.203, 0.235, 0.291, 0.097]),
        ("step_noise", [0.004, 0.024, 0.177, 0.551, 0.244]),
        ("x0", [0.000, 0.000, 0.001, 0.164, 0.835]),
        ("score", [0.767, 0.187, 0.031, 0.013, 0.003]),
    ],
)
def test_each_plain_loss_spends_its_weight_where_it_is_known_to(target: str, shares: list[float]) -> None:
    """Share of the eps-weight on steps up to 10, 100, 500, 900 and 1000 of DDPM's chain."""
    weight = Objective(TARGETS[target]).eps_weight(LinearBeta(), per_image(torch.arange(1, 1001) / 1000))
    parts = torch.stack([part.sum() for part in weight.split([10, 90, 400, 400, 100])])
    assert (parts / parts.sum()).tolist() == pytest.approx(shares, abs=6e-4)


@every_target_and_schedule
def test_the_zero_prediction_costs_the_square_of_the_label(schedule: Schedule, target: Target) -> None:
    t = times_on(schedule)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    loss = Objective(target).of_prediction(torch.zeros_like(x0), schedule, x0, t, eps, xi)
    label = target.draw(schedule, t, x0, eps, xi)
    assert_close(loss, label.square().mean((1, 2, 3), keepdim=True), rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [3, 50, 100])
def test_float32_grid_times_have_the_loss_of_grid_times(steps: int) -> None:
    """0.02 as float32 lies before the first of 50 steps."""
    chain, exact = LinearBeta(steps), per_image([k / steps for k in range(1, steps + 1)])
    for target in (Epsilon(), X0(), UnitStepNoise()):
        objective = Objective(target, Score(), Vlb())
        assert torch.equal(objective.scale(chain, exact.float()), objective.scale(chain, exact))
        assert torch.equal(objective.eps_weight(chain, exact.float()), objective.eps_weight(chain, exact))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_are_taken_and_summed_in_float32(dtype: torch.dtype) -> None:
    """The square of DDPM's first score, 1e4 and more, leaves float16; a bfloat16 sum stops growing at 256."""
    t, ones = per_image([0.001]), torch.ones(1, 1, 64, 64, dtype=dtype)
    loss = Objective(Score()).of_prediction(0 * ones, LinearBeta(), ones, t, 4 * ones, ones)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(400**2, rel=1e-2)


@every_schedule
@pytest.mark.parametrize("times", [Uniform(), LogNormal(), LogitNormal()], ids=repr)
def test_the_effective_weight_is_one_on_average_over_uniform_times(
    schedule: Schedule, times: Uniform | LogNormal | LogitNormal
) -> None:
    found = effective_weight(Objective(V(), None, TruncatedSnr()), schedule, times)
    log_snr, weight = found.log_snr, found.weight
    share = share_of_uniform_times(schedule, np.array(log_snr))
    assert log_snr == sorted(log_snr)
    assert float(share @ np.array(weight)) == pytest.approx(1, abs=2e-3)
    assert share.sum() == pytest.approx(1, abs=2e-3)


def share_of_uniform_times(schedule: Schedule, centres: np.ndarray) -> np.ndarray:
    """Which share of uniform times over the schedule's range falls in each bin of log-SNR, 0.5 wide."""
    if schedule.is_chain:
        steps = schedule.log_snr(per_image(torch.arange(1, 1001) / 1000)).flatten().numpy()
        return np.array([((steps >= c - 0.25) & (steps < c + 0.25)).mean() for c in centres])
    edges = np.stack([centres + 0.25, centres - 0.25])
    early, late = schedule.time(torch.as_tensor(edges)).clamp(1e-3, 1 - 1e-3).numpy()
    return (late - early) / 0.998


@every_schedule
def test_the_effective_weight_of_plain_eps_at_uniform_times_is_one_everywhere(schedule: Schedule) -> None:
    found = effective_weight(Objective(Epsilon()), schedule, Uniform())
    log_snr, weight = found.log_snr, found.weight
    assert weight == pytest.approx([1.0] * len(log_snr), rel=1e-9)


def test_the_effective_weight_of_plain_x0_falls_with_the_signal() -> None:
    """e^-lam on the eps-error, averaged over each bin: on the straight line int (t / (1 - t))^2 dt."""
    found = effective_weight(Objective(X0()), Rectified(), Uniform())
    log_snr, weight = found.log_snr, found.weight
    edges = np.stack([np.array(log_snr) + 0.25, np.array(log_snr) - 0.25])
    early, late = np.clip(1 / (1 + np.exp(edges / 2)), 1e-3, 1 - 1e-3)

    def area(t: np.ndarray | float) -> np.ndarray | float:
        return t + 1 / (1 - t) + 2 * np.log(1 - t)

    wanted = (area(late) - area(early)) / (late - early) / ((area(0.999) - area(0.001)) / 0.998)
    assert np.array(weight)[2:-2] == pytest.approx(wanted[2:-2], rel=2e-2)


def test_the_effective_weight_counts_how_often_times_are_drawn() -> None:
    """EDM's log-normal times with plain eps: the normal law's mass over uniform's, bin by bin."""
    found = effective_weight(Objective(Epsilon()), SCHEDULES["edm"], LogNormal())
    log_snr, weight = found.log_snr, found.weight
    centres = np.array(log_snr)
    mass = norm.cdf((centres + 0.25) / -2, -1.2, 1.2) - norm.cdf((centres - 0.25) / -2, -1.2, 1.2)
    wanted = -mass / share_of_uniform_times(SCHEDULES["edm"], centres)
    wanted /= norm.cdf(np.log(79.92), -1.2, 1.2) - norm.cdf(np.log(0.08), -1.2, 1.2)
    assert np.array(weight)[1:-1] == pytest.approx(wanted[1:-1], rel=3e-2, abs=5e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_the_effective_weight_of_a_headline_target_is_its_gain(name: str) -> None:
    """In a narrow bin of a chain, sigma eps weighs eps by sigma^2."""
    schedule = SCHEDULES[name]
    found = effective_weight(Objective(ScaledNoise()), schedule, Uniform(), width=0.25)
    log_snr, weight = found.log_snr, found.weight
    variance = schedule.sigma(per_image(torch.arange(1, 1001) / 1000)).square()
    wanted = 1 / (1 + np.exp(log_snr)) / variance.mean().item()
    assert np.array(weight) == pytest.approx(wanted, rel=0.14)


@every_target_and_schedule
@pytest.mark.parametrize("times", [Uniform(), LogitNormal(), LogNormal()], ids=repr)
def test_the_expected_loss_of_silence_is_what_training_would_see(
    schedule: Schedule, target: Target, times: Times
) -> None:
    objective = Objective(target)
    zero, noise = zero_prediction_loss(objective, schedule, times, second_moment=0.25)
    t = times(schedule, (torch.arange(20_000) + torch.rand(20_000)) / 20_000)
    x0 = torch.randn(20_000, 2, 3, 3) / 2
    eps, xi = torch.randn_like(x0), torch.randn_like(x0)
    seen = objective.of_prediction(torch.zeros_like(x0), schedule, x0, t, eps, xi).flatten()
    assert zero == pytest.approx(seen.mean().item(), abs=5 * seen.std().item() / 20_000**0.5, rel=1e-3)
    assert (noise > 0) == (target in [TARGETS[name] for name in WITH_LABEL_NOISE])
