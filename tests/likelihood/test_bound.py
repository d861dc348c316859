"""The variational bound against reference values, exact identities, and its own expectation."""

import math
from typing import Any

import pytest
import torch
from catalogue import TARGETS, every_schedule, every_target_and_schedule, reference
from torch import Tensor
from torch.testing import assert_close

from diffexp.draws import Draws
from diffexp.likelihood.bound import HeldOutBound, Variance, expected_vlb, log_probability_of_8_bit, measured_mmse, vlb
from diffexp.oracle import Gaussian, Mixture
from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.targets import Epsilon, Target, UnitStepNoise, V
from diffexp.weighting import Vlb

CASES = reference("bounds")["cases"]
MEAN, VARIANCE = torch.tensor([[[0.3, -0.6]]]), torch.tensor([0.2, 0.03])
PIXELS = Gaussian(MEAN, torch.diag(VARIANCE))
POWER = (MEAN.flatten().square() + VARIANCE).mean().item()
ENTROPY = (2 * math.pi * math.e * VARIANCE).log().mean().item() / 2


def mmse(log_snr: Tensor) -> Tensor:
    return PIXELS.bayes_eps(log_snr)[0] / 2


def draw(count: int) -> Tensor:
    return MEAN + VARIANCE.sqrt() * torch.randn(count, 1, 1, 2)


def model_nll(schedule: Schedule, steps: int, s2: Tensor) -> float:
    """Of PIXELS' exact denoiser: every step of the model is affine, so its law at t = 0 is normal."""
    grid = torch.linspace(0, 1, steps + 1).reshape(-1, 1, 1, 1)
    alpha, sigma = schedule.alpha(grid).flatten(), schedule.sigma(grid).flatten()
    mean, variance = torch.zeros(2), sigma[-1].square().expand(2)
    for i in range(steps, 0, -1):
        beta = sigma[i] ** 2 - (alpha[i] / alpha[i - 1] * sigma[i - 1]) ** 2
        total = alpha[i] ** 2 * VARIANCE + sigma[i] ** 2
        x0_gain = alpha[i] * VARIANCE / total
        gain = alpha[i - 1] * beta / sigma[i] ** 2 * x0_gain
        gain = gain + alpha[i] / alpha[i - 1] * (sigma[i - 1] / sigma[i]) ** 2
        mean = alpha[i - 1] * MEAN.flatten() + gain * (mean - alpha[i] * MEAN.flatten())
        variance = gain**2 * variance + s2[i - 1]
    away = VARIANCE + (mean - MEAN.flatten()) ** 2
    return ((2 * math.pi * variance).log() + away / variance).mean().item() / 2


def variances(schedule: Schedule, steps: int, variance: Variance) -> Tensor:
    """s^2 at i = 1..steps as the papers have them."""
    grid = torch.linspace(0, 1, steps + 1).reshape(-1, 1, 1, 1)
    alpha, sigma = schedule.alpha(grid).flatten(), schedule.sigma(grid).flatten()
    beta = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    tilde = beta * (sigma[:-1] / sigma[1:]) ** 2
    if variance == "beta":
        return beta
    if variance == "beta_tilde":
        return torch.cat([tilde[1:2], tilde[1:]])
    per_pixel = VARIANCE * sigma[1:, None] ** 2 / (alpha[1:, None] ** 2 * VARIANCE + sigma[1:, None] ** 2)
    return tilde + (alpha[:-1] * beta / sigma[1:] ** 2) ** 2 * per_pixel.mean(1)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{len(c['means'])}-{c['means'][0]}-{c['steps']}-{c['variance']}")
def test_the_expected_bound_is_that_of_the_reference(case: dict[str, Any]) -> None:
    weights, means, spreads = (torch.tensor(case[key]) for key in ("weights", "means", "variances"))
    data = Mixture(weights, means[:, None, None, None], spreads[:, None, None])
    power = float(weights @ (means.square() + spreads))
    bound = expected_vlb(LinearBeta(), lambda lam: data.bayes_eps(lam)[0], power, case["steps"], case["variance"])
    assert bound.kl.shape == (case["steps"] - 1,)
    got = {"L_T": bound.L_T, "kl": bound.kl.sum(), "L_0": bound.L_0, "bits_per_dim": bound.bits_per_dim}
    for name, value in got.items():
        assert value.item() == pytest.approx(case[name], abs=1e-8), name
    assert bound.bits_per_dim.item() * math.log(2) >= case["model_nll"] - 1e-12 >= case["entropy"] - 2e-12


@every_schedule
@pytest.mark.parametrize("steps", [2, 10, 40])
@pytest.mark.parametrize("variance", ["beta", "beta_tilde", "optimal"])
def test_bound_is_above_the_models_nll_is_above_entropy(schedule: Schedule, steps: int, variance: Variance) -> None:
    nats = expected_vlb(schedule, mmse, POWER, steps, variance).bits_per_dim.item() * math.log(2)
    nll = model_nll(schedule, steps, variances(schedule, steps, variance))
    assert nats >= nll >= ENTROPY


@every_schedule
@pytest.mark.parametrize("steps", [2, 25, 1000])
def test_optimal_variances_cost_nothing_on_white_data_but_the_prior(schedule: Schedule, steps: int) -> None:
    """Then every step is exactly Bayes' rule, whatever their number: bound = entropy + KL(x_1's law, the prior)."""
    mean, variance = 0.4, 0.09

    def white(log_snr: Tensor) -> Tensor:
        return Gaussian(torch.full((1, 1, 1), mean), torch.full((1, 1), variance)).bayes_eps(log_snr)[0]

    bound = expected_vlb(schedule, white, mean**2 + variance, steps, "optimal")
    snr = schedule.log_snr(torch.ones(1, 1, 1, 1)).exp().item()
    prior = (snr * (mean**2 + variance) - math.log1p(snr * variance)) / 2
    entropy = math.log(2 * math.pi * math.e * variance) / 2
    assert bound.bits_per_dim.item() * math.log(2) == pytest.approx(entropy + prior, abs=1e-10)


def terms(schedule: Schedule, target: Target, variance: Variance, x0: Tensor) -> Tensor:
    """L_T, the KLs and L_0 in 6 steps, from the same noise in every call."""
    made = torch.Generator().manual_seed(5)
    bound = vlb(PIXELS.denoiser(schedule, target), x0, 6, variance, generator=made, mmse=mmse)
    columns = torch.cat([bound.L_T[:, None], bound.kl, bound.L_0[:, None]], dim=1)
    assert_close(bound.bits_per_dim, columns.sum(1) / math.log(2))
    return columns


@every_schedule
@pytest.mark.parametrize("variance", ["beta", "beta_tilde", "optimal"])
def test_drawn_bounds_average_to_the_expected_one(schedule: Schedule, variance: Variance) -> None:
    drawn = terms(schedule, V(), variance, draw(1000))
    exact = expected_vlb(schedule, mmse, POWER, 6, variance)
    wanted = torch.cat([exact.L_T[None], exact.kl, exact.L_0[None]])
    stderr = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - wanted).abs() <= 4 * stderr + 1e-15).all()
    assert (stderr <= 0.2 * (wanted.abs() + 0.1)).all()


@every_target_and_schedule
def test_every_target_has_the_same_bound(target: Target, schedule: Schedule) -> None:
    if target.gain(schedule, torch.ones(1, 1, 1, 1)) == 0:
        with pytest.raises(ValueError, match="t = 1"):
            terms(schedule, target, "beta", draw(2))
    else:
        x0 = draw(10)
        assert_close(terms(schedule, target, "beta", x0), terms(schedule, V(), "beta", x0), rtol=1e-7, atol=1e-10)


def test_unit_step_noise_has_the_bounds_weights() -> None:
    """Plain MSE on it weighs the eps-error 2 (1 - beta) k_t; and exactly k_t twice for variance beta / (1 - beta)."""
    chain, t = LinearBeta(), torch.arange(1, 1001).reshape(-1, 1, 1, 1) / 1000
    bounds = [expected_vlb(chain, lambda _, e=error: torch.full((1000,), e), 1.0, 1000, "beta") for error in (0.0, 1.0)]
    k = (bounds[1].kl - bounds[0].kl).numpy()
    mse = (UnitStepNoise().gain(chain, t) / chain.alpha(t)).square().flatten()
    beta = chain.betas()
    assert (2 * (1 - beta) * Vlb()(chain, t).flatten()).tolist() == pytest.approx(mse.tolist(), rel=1e-12)
    # As differences of whole terms the weights lose a few digits.
    assert (2 * (1 - beta[1:]).numpy() * k).tolist() == pytest.approx(mse[1:].tolist(), rel=1e-9)
    assert (2 * k * beta[1:].numpy() / (beta / (1 - beta))[1:].numpy()).tolist() == pytest.approx(
        mse[1:].tolist(), rel=1e-9
    )


@pytest.mark.parametrize("std", [1e-4, 3e-3, 0.05, 1.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.003, 0.9])
def test_probabilities_of_8_bit_values_sum_to_one(mean: float, std: float) -> None:
    values = torch.arange(256) / 127.5 - 1
    logs = log_probability_of_8_bit(values, torch.full_like(values, mean), std)
    assert logs.isfinite().all()
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_the_probability_of_an_8_bit_value_is_its_density_times_its_width() -> None:
    values, mean, std = torch.arange(1, 255) / 127.5 - 1, torch.full((254,), 0.1), 0.4
    density = torch.distributions.Normal(mean, std).log_prob(values) + math.log(2 / 255)
    assert_close(log_probability_of_8_bit(values, mean, std), density, rtol=0, atol=3e-4)


def test_far_values_keep_their_tail() -> None:
    far = log_probability_of_8_bit(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0]), 0.01)
    reach = (2 - 1 / 255) / 0.01
    tail = -(reach**2) / 2 - math.log(reach * math.sqrt(2 * math.pi)) - reach**-2
    assert far.tolist() == pytest.approx([tail, tail], rel=1e-9)


def test_only_the_reconstruction_knows_of_8_bits() -> None:
    levels = torch.randint(0, 256, (5, 1, 1, 2), generator=torch.Generator().manual_seed(1))
    x0, denoiser = levels / 127.5 - 1, PIXELS.denoiser(LinearBeta(), Epsilon())
    smooth, counted = (
        vlb(denoiser, x0, 20, "beta", discretized=on, generator=torch.Generator().manual_seed(0))
        for on in (False, True)
    )
    assert_close(counted.kl, smooth.kl)
    # sqrt(beta) of the first of 20 steps is many bins wide, so each bin's mass is nearly its width times a density.
    inside = ((levels > 60) & (levels < 195)).all(dim=3).flatten()
    assert inside.any()
    assert_close(counted.L_0[inside], smooth.L_0[inside] - math.log(2 / 255), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "flow"])
def test_float32_images_have_the_same_bound_on_average(name: str) -> None:
    schedule, steps = LinearBeta(), 10
    bound = vlb(PIXELS.denoiser(schedule, TARGETS[name]), draw(400).float(), steps, "beta")
    exact = expected_vlb(schedule, mmse, POWER, steps, "beta")
    assert bound.kl.dtype == torch.float64
    stderr = bound.kl.std(0) / math.sqrt(400)
    assert ((bound.kl.mean(0) - exact.kl).abs() <= 4.5 * stderr).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1}, "at least 2"),
        ({"steps": 1001}, "T = 1000"),
        ({"variance": "optimal"}, "needs mmse"),
        ({"discretized": True}, "Quantise"),
    ],
)
def test_what_has_no_bound_raises(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vlb(PIXELS.denoiser(LinearBeta(), V()), draw(2), **{"steps": 10, "variance": "beta", **change})


@every_schedule
@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_a_bound_from_two_draws_an_image_is_right_on_average(schedule: Schedule, variance: Variance) -> None:
    """Over many fixed sets of draws, whose scatter is their standard error."""
    v, found = V(), []
    for seed in range(40):
        held = HeldOutBound(draw(100), schedule, variance, False, Draws(seed), t_start=0.999 if path(schedule) else 1.0)
        found.append(held.bits_per_dim(PIXELS.denoiser(schedule, v), batch_size=64))
    bits = torch.tensor(found)
    exact = expected_vlb(schedule, mmse, POWER, 1000, variance, t_start=0.999 if path(schedule) else 1.0)
    stderr = bits.std().item() / math.sqrt(len(bits))
    assert abs(bits.mean().item() - exact.bits_per_dim.item()) < 4 * stderr


def path(schedule: Schedule) -> bool:
    return not schedule.is_chain


@pytest.mark.parametrize("target", ["epsilon", "x0", "score", "posterior_mean"])
def test_two_draws_an_image_are_the_same_for_every_target(target: str) -> None:
    held = HeldOutBound(draw(50), LinearBeta(), "beta", False, Draws(3))
    ours, theirs = (held.bits_per_dim(PIXELS.denoiser(LinearBeta(), kind)) for kind in (TARGETS[target], V()))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_target_that_is_silent_at_the_start_has_no_bound_from_there() -> None:
    x0 = draw(4)
    assert not HeldOutBound(x0, Rectified(), "beta", False, Draws(0)).exists_for(Epsilon())
    assert HeldOutBound(x0, Rectified(), "beta", False, Draws(0), t_start=0.999).exists_for(Epsilon())
    assert HeldOutBound(x0, Rectified(), "beta", False, Draws(0)).exists_for(V())


def test_a_bound_that_starts_earlier_in_time_has_a_prior_of_its_own() -> None:
    """From t_start the model begins at N(0, sigma^2): L_T is SNR x0^2 / 2 there, and the rest as before."""
    exact = expected_vlb(Rectified(), mmse, POWER, 50, "beta", t_start=0.5)
    assert exact.L_T.item() == pytest.approx(POWER / 2, rel=1e-12)
    with pytest.raises(ValueError, match="a chain's bound starts at t = 1"):
        expected_vlb(LinearBeta(), mmse, POWER, 50, "beta", t_start=0.5)


def test_measured_errors_give_nearly_the_optimal_variances() -> None:
    chain, v = LinearBeta(), V()
    measured = measured_mmse(PIXELS.denoiser(chain, v), draw(4000), 20, torch.Generator().manual_seed(1))
    t = torch.linspace(0.05, 1, 20).reshape(-1, 1, 1, 1)
    log_snr = chain.log_snr(t).flatten()
    assert measured(log_snr).tolist() == pytest.approx(mmse(log_snr).tolist(), rel=0.08)
    ours, exact = (expected_vlb(chain, kind, POWER, 20, "optimal").bits_per_dim.item() for kind in (measured, mmse))
    assert ours == pytest.approx(exact, abs=0.02)
