"""How well targets can be predicted, against another program's table, closed forms, and brute force over every step."""

import functools

import numpy as np
import pytest
import torch
from catalogue import TARGETS, WITH_LABEL_NOISE, per_image, reference
from scipy.interpolate import CubicSpline

from diffexp.data.arrays import Arrays, image_data
from diffexp.data.base import Data
from diffexp.data.gaussian import SmoothGaussian
from diffexp.data.glyphs import Digits8
from diffexp.data.mixture import MixtureData
from diffexp.data.pixels import to_float, to_uint8
from diffexp.explain.losses import Explanation, explain
from diffexp.objective import Objective, zero_prediction_loss
from diffexp.oracle import Gaussian, Mixture, known_density
from diffexp.oracle.bayes import bayes_loss
from diffexp.runs.metric_keys import NOISE_REGIONS
from diffexp.schedule import LinearBeta, LinearBetaCont, Rectified, Schedule
from diffexp.targets import Epsilon, ScaledNoise, StepNoise
from diffexp.times import LogNormal, Times, Uniform
from diffexp.weighting import P2, Edm

CHAIN = LinearBeta()
EVERY_STEP = per_image(np.arange(1, 1001) / 1000)
TABLE = {  # zero prediction, best multiple of x_t, optimum, label noise: means over DDPM's steps
    "epsilon": (1, 0.2145, 0.0428, 0),
    "scaled_noise": (0.7245, 0.0513, 0.0101, 0),
    "step_noise": (0.010050, 0.009912, 0.009904, 0.009902),
    "unit_step_noise": (1, 0.9892, 0.9845, 0.9804),
    "x0": (0.4568, 0.3588, 0.1362, 0),
    "previous_sample": (0.8498, 0.010046, 0.010038, 0.010036),
    "score": (32.05, 30.80, 23.80, 0),
}


def explained(data: Data, *names: str, schedule: Schedule = CHAIN, nodes: int = 24) -> Explanation:
    return explain({name: Objective(TARGETS[name]) for name in names}, data, schedule, Uniform(), nodes)


@functools.cache
def digits8() -> Explanation:
    return explained(Digits8().load(), *TABLE)


def drawn(count: int) -> Data:
    """So many 8-bit images from the mixture, and a few held out."""
    pixels = to_uint8(Digits8().load().reference("train", count + 5)).numpy()
    return image_data("drawn", Arrays("drawn", pixels[:count], images_test=pixels[count:]))


@pytest.mark.parametrize("target", TABLE)
def test_digits_are_as_predictable_as_in_another_program(target: str) -> None:
    mean = digits8().targets[target].mean
    zero, multiple, optimum, label_noise = TABLE[target]
    assert (mean.zero, mean.multiple, mean.label_noise) == pytest.approx((zero, multiple, label_noise), rel=6e-4)
    assert mean.optimum == pytest.approx(optimum, rel=6e-3)  # its three digits


@pytest.mark.parametrize("target", TABLE)
def test_means_over_the_steps_agree_with_another_programs_curve(target: str) -> None:
    """It is known at 27 log-SNRs, by other draws."""
    known = reference("bayes")
    curve = CubicSpline(known["log_snr"], np.log(known["data"]["digits8"]["mmse_eps"]))
    mmse = torch.as_tensor(np.exp(curve(CHAIN.log_snr(EVERY_STEP))))
    least = bayes_loss(TARGETS[target], CHAIN, EVERY_STEP, mmse, 64).mean().item() / 64
    mean = digits8().targets[target].mean
    assert abs(mean.optimum - least) < 3 * mean.stderr + 5e-4 * (least - mean.label_noise)


@pytest.mark.parametrize("schedule", [CHAIN, LinearBetaCont()], ids=["chain", "path"])
def test_interpolated_means_are_right_to_a_thousandth(schedule: Schedule) -> None:
    """Against every step, on two peaks whose curve has a bend and is exact."""
    means, variances = torch.tensor([[[[-0.8]]], [[[0.5]]]]), torch.tensor([[[0.01]], [[0.1]]])
    data = MixtureData("peaks", torch.tensor([0.3, 0.7]), means, variances)
    found = explained(data, "epsilon", "x0", "score", schedule=schedule)
    known, t = known_density(data), Uniform()(schedule, (torch.arange(1000) + 0.5) / 1000)
    assert known is not None
    mmse, _ = known.bayes_eps(schedule.log_snr(t))
    for name in ("epsilon", "x0", "score") if schedule.is_chain else ("epsilon", "x0"):
        least = bayes_loss(TARGETS[name], schedule, t, mmse, 1).mean().item()
        assert found.targets[name].mean.optimum == pytest.approx(least, rel=1e-3)


def test_the_share_of_noise_that_digits_determine_is_known() -> None:
    found = digits8()
    at = [found.times.index(t) for t in (0.001, 0.01, 1.0)]
    assert [found.r2[i] for i in at] == pytest.approx([0.036, 0.398, 0.99999], abs=2e-3)
    assert found.images is None


def test_means_on_a_gaussian_are_those_over_every_step() -> None:
    data = SmoothGaussian().load()
    found = explained(data, "epsilon", "step_noise", "score", "previous_sample")
    known = known_density(data)
    assert known is not None
    mmse, _ = known.bayes_eps(CHAIN.log_snr(EVERY_STEP))
    for name, one in found.targets.items():
        least = bayes_loss(TARGETS[name], CHAIN, EVERY_STEP, mmse, 64).mean().item() / 64
        assert one.mean.optimum == pytest.approx(least, rel=3e-4)
        assert one.mean.stderr == 0
        assert one.mean.linear == pytest.approx(one.mean.optimum, rel=1e-9)  # nothing is better than linear


def test_four_nodes_determine_the_curve_of_white_data() -> None:
    """Whose optimal prediction is a multiple of x_t."""
    data = MixtureData("white", torch.ones(1), torch.zeros(1, 1, 2, 2), 0.3 * torch.eye(4)[None])
    for schedule in (CHAIN, Rectified()):
        found = explained(data, "epsilon", "x0", "v", schedule=schedule, nodes=4)
        assert found.r2 == pytest.approx(found.r2_multiple, rel=1e-10)
        for one in found.targets.values():
            assert one.curve.optimum == pytest.approx(one.curve.multiple, rel=1e-9)
            assert one.mean.optimum == pytest.approx(one.mean.multiple, rel=1e-9)


def test_a_few_images_determine_more_noise_than_their_population() -> None:
    few, all_ = explained(drawn(200), "epsilon", nodes=12), digits8()
    assert few.images == 200
    assert few.log_snr == all_.log_snr
    for known, population in zip(few.r2, all_.r2, strict=True):
        assert known > population - 3e-3
    low = [i for i, lam in enumerate(few.log_snr) if lam > 4]
    assert all(few.r2[i] > 0.999 for i in low)
    assert all(all_.r2[i] < 0.83 for i in low)


def test_the_linear_denoiser_of_images_is_that_of_their_mean_and_covariance() -> None:
    data = drawn(90)
    found = explained(data, "epsilon", nodes=16)
    flat = to_float(data.reference("train")).double().flatten(1)
    gaussian = Gaussian(flat.mean(0).reshape(1, 8, 8), torch.cov(flat.T, correction=0))
    mmse, _ = gaussian.bayes_eps(torch.tensor(found.log_snr))
    assert found.r2_linear == pytest.approx((1 - mmse / 64).tolist(), abs=2e-3)
    assert found.power == pytest.approx(flat.square().mean().item(), rel=1e-9)


def test_the_linear_denoiser_of_a_mixture_is_that_of_many_draws() -> None:
    flat = Digits8().load().reference("train", 20_000).double().flatten(1)
    gaussian = Gaussian(flat.mean(0).reshape(1, 8, 8), torch.cov(flat.T))
    mmse, _ = gaussian.bayes_eps(torch.tensor(digits8().log_snr))
    assert digits8().r2_linear == pytest.approx((1 - mmse / 64).tolist(), abs=5e-3)


@pytest.mark.parametrize("schedule", [CHAIN, Rectified()], ids=["chain", "path"])
@pytest.mark.parametrize("times", [Uniform(), LogNormal()], ids=["uniform", "log_normal"])
def test_the_first_loss_is_that_of_the_zero_prediction(schedule: Schedule, times: Times) -> None:
    """In any space and weighting of the loss."""
    data = SmoothGaussian(side=2).load()
    objectives = {
        "native": Objective(StepNoise()),
        "in eps": Objective(StepNoise(), Epsilon()),
        "weighted": Objective(ScaledNoise(), None, P2()),
        "edm": Objective(TARGETS["x0"], None, Edm()),
    }
    found = explain(objectives, data, schedule, times, 8)
    for name, objective in objectives.items():
        zero, noise = zero_prediction_loss(objective, schedule, times, found.power)
        assert found.targets[name].mean.zero == pytest.approx(zero, rel=1e-9)
        assert found.targets[name].mean.label_noise == pytest.approx(noise, rel=1e-9)


@pytest.mark.parametrize("target", ["epsilon", "x0", "unit_step_noise"])
def test_shares_are_those_of_the_weight_on_the_eps_error(target: str) -> None:
    found = explained(SmoothGaussian(side=2).load(), target)
    lam, weight = CHAIN.log_snr(EVERY_STEP), Objective(TARGETS[target]).eps_weight(CHAIN, EVERY_STEP)
    inside = [(lam >= low) & (lam < high) for low, high in NOISE_REGIONS.values()]
    expected = [(weight[part].sum() / weight.sum()).item() for part in inside]
    assert found.targets[target].shares == pytest.approx(expected, rel=1e-9)
    assert found.time_shares == pytest.approx([part.double().mean().item() for part in inside], rel=1e-9)


@pytest.mark.parametrize("schedule", [CHAIN, Rectified()], ids=["chain", "path"])
def test_more_information_never_costs_more(schedule: Schedule) -> None:
    names = [name for name in TARGETS if name != "flow" or not schedule.is_chain]
    found = explained(Digits8(tau=0.3).load(), *names, schedule=schedule, nodes=8)
    for name, one in found.targets.items():
        assert one.mean.linear is not None
        steps = [one.mean.label_noise, one.mean.optimum, one.mean.linear, one.mean.multiple, one.mean.zero]
        assert steps == sorted(steps)
        assert (one.mean.label_noise > 0) == (name in WITH_LABEL_NOISE)


@pytest.mark.parametrize("target", ["epsilon", "scaled_noise", "step_noise"])
def test_the_standard_error_is_that_of_the_curve_carried_into_the_loss(target: str) -> None:
    found = digits8()
    weight = Objective(TARGETS[target]).eps_weight(CHAIN, per_image(found.times)).flatten()
    expected = (weight * torch.tensor(found.r2_stderr)).tolist()
    assert found.targets[target].curve.stderr == pytest.approx(expected, rel=1e-6)
    assert 0 < found.targets[target].mean.stderr < max(expected)


def test_beyond_4096_dimensions_there_is_no_linear_denoiser() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 65, 65), dtype=np.uint8)
    found = explained(image_data("large", Arrays("large", pixels[:1], images_test=pixels[1:])), "epsilon", nodes=4)
    assert found.r2_linear is None
    assert found.targets["epsilon"].mean.linear is None
    assert found.power == pytest.approx(to_float(torch.as_tensor(pixels[:1])).square().mean().item(), rel=1e-6)
    assert found.r2 == pytest.approx([1] * len(found.r2))  # the only image determines the noise


def test_the_exact_reference_is_that_of_data_whose_density_is_known() -> None:
    data = Digits8().load()
    known = known_density(data)
    assert isinstance(known, Mixture)
    lam = torch.tensor([-2.0, 8.0])
    again = Mixture(data.weights, data.means, data.covariances).bayes_eps(lam)
    assert [part.tolist() for part in known.bayes_eps(lam)] == [part.tolist() for part in again]
    assert known_density(drawn(20)) is None
