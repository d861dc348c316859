"""Exact denoisers against brute force, autograd and reference values; the least eps-error against all three."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from catalogue import SCHEDULES, TARGETS, every_target_and_schedule, images, per_image, times_on
from known_data import KNOWN, LOG_SNR, curve, named
from torch import Tensor
from torch.testing import assert_close

from diffexp.data.glyphs import Digits8
from diffexp.data.images import ImageData
from diffexp.oracle import FiniteData, Gaussian, Mixture, Reference, known_density
from diffexp.schedule import CosineCont, Rectified, Schedule
from diffexp.targets import X0, Epsilon, Target


def lopsided() -> Mixture:
    """Three 2 x 2 images of unlike weight: full, low-rank and no covariance."""
    made = torch.Generator().manual_seed(1)
    full, thin = (torch.randn(rank, 4, generator=made) / 2 for rank in (4, 2))
    covariances = torch.stack([full.T @ full, thin.T @ thin, torch.zeros(4, 4)])
    return Mixture(torch.tensor([0.2, 0.5, 0.3]), torch.randn(3, 1, 2, 2, generator=made) / 2, covariances)


def photographs(count: int = 7) -> Tensor:
    return images(3, torch.zeros(count)).clamp(-1, 1)


REFERENCES: dict[str, Reference] = {
    "gaussian": Gaussian(torch.tensor([[[0.5, -0.2]]]), torch.tensor([[0.5, 0.3], [0.3, 0.4]])),
    "mixture": lopsided(),
    "finite": FiniteData(photographs()),
}
every_reference = pytest.mark.parametrize("known", REFERENCES.values(), ids=REFERENCES)


def noised(known: Reference, schedule: Schedule, t: Tensor) -> Tensor:
    count = math.prod(known.shape)
    x0 = torch.linspace(-0.9, 0.8, len(t) * count).reshape(len(t), *known.shape)
    return schedule.noised(t, x0, torch.randn(x0.shape))


def log_density(known: Reference, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """log p_t by inverting covariances: good at moderate log-SNR alone."""
    if isinstance(known, FiniteData):
        weights, means = torch.full((len(known.images),), 1 / len(known.images)), known.images
        covariances = torch.zeros(len(means), means.shape[1], means.shape[1])
    else:
        assert isinstance(known, Mixture | Gaussian)
        weights, means = known.weights, known.means
        covariances = torch.einsum("kij,kj,klj->kil", known.axes, known.variances, known.axes)
    parts = [
        torch.distributions.MultivariateNormal(alpha * m, alpha**2 * c + sigma**2 * torch.eye(len(m))).log_prob(x_t)
        for m, c in zip(means, covariances, strict=True)
    ]
    return (torch.stack(parts) + weights.log()[:, None]).logsumexp(0)


@pytest.mark.parametrize("name", KNOWN["data"])
def test_the_least_eps_error_is_that_of_the_reference(name: str) -> None:
    known = KNOWN["data"][name]
    value, stderr = curve(name)
    off = value - torch.tensor(known["mmse_eps"])
    both = (stderr.square() + torch.tensor(known["stderr"]).square()).sqrt()
    assert (off.abs() <= 4 * both + 1e-9).all()
    assert (stderr == 0).all() == (name != "digits8")
    assert (stderr <= 5e-3 * value).all()


@every_reference
@pytest.mark.parametrize("schedule", [SCHEDULES["linear_beta"], Rectified()], ids=["linear_beta", "rectified"])
def test_the_score_is_the_gradient_of_log_density(known: Reference, schedule: Schedule) -> None:
    t = per_image([0.3, 0.5, 0.8])
    x_t = noised(known, schedule, t)
    score = known.denoiser(schedule, X0())(x_t, t).score
    for x, alpha, sigma, got in zip(x_t, schedule.alpha(t).flatten(), schedule.sigma(t).flatten(), score, strict=True):
        flat = x.flatten().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(known, flat[None], alpha, sigma).sum(), flat)
        assert_close(got.flatten(), gradient, rtol=1e-9, atol=1e-9)


def test_finite_data_is_a_softmax_over_distances() -> None:
    data, schedule, t = photographs(), Rectified(), per_image([0.02, 0.3, 0.9])
    x_t = schedule.noised(t, data[:3], torch.randn(data[:3].shape))
    estimate = FiniteData(data).denoiser(schedule, X0())(x_t, t)
    for x, alpha, sigma, x0 in zip(
        x_t.numpy(), schedule.alpha(t).numpy(), schedule.sigma(t).numpy(), estimate.x0.numpy(), strict=True
    ):
        logits = -((x - alpha * data.numpy()) ** 2).sum((1, 2, 3)) / (2 * sigma.item() ** 2)
        share = np.exp(logits - logits.max())
        np.testing.assert_allclose(x0, np.tensordot(share / share.sum(), data.numpy(), 1), rtol=1e-12, atol=1e-13)


def test_finite_data_in_blocks_equals_finite_data_at_once() -> None:
    whole, parts = FiniteData(photographs(11)), FiniteData(photographs(11))
    parts.block = 3
    x = torch.randn(5, 18)
    levels = torch.full((5, 1), 0.6), torch.full((5, 1), 0.8)
    for at_once, in_blocks in zip(whole.conditional_mean(x, *levels), parts.conditional_mean(x, *levels), strict=True):
        assert_close(in_blocks, at_once, rtol=1e-13, atol=1e-13)
    assert_close(parts.conditional_variance(x, *levels), whole.conditional_variance(x, *levels), rtol=1e-12, atol=1e-13)


@every_target_and_schedule
def test_any_target_converts_to_the_same_exact_prediction(target: Target, schedule: Schedule) -> None:
    known, t = REFERENCES["mixture"], times_on(schedule)
    x_t = noised(known, schedule, t)
    levels = (level(t).flatten(1) for level in (schedule.alpha, schedule.sigma))
    x0, eps = known.conditional_mean(x_t.flatten(1), *levels)
    got = known.denoiser(schedule, target)(x_t, t)
    # Targets that are nearly blind at some time amplify the rounding of their prediction there, and no more.
    gain = target.gain(schedule, t)
    prediction = known.denoiser(schedule, target).predict(x_t, t).abs().amax((1, 2, 3), keepdim=True) + x_t.abs().amax()
    slack = 1e-14 * (1 + schedule.sigma(t) + schedule.alpha(t)) * (1 + prediction / gain.abs())
    assert ((got.x0.flatten(1) - x0).abs() <= 10 * slack.flatten(1)).all()
    assert ((got.eps.flatten(1) - eps).abs() <= 10 * slack.flatten(1)).all()


@every_reference
def test_float32_images_get_float32_predictions_as_exact(known: Reference) -> None:
    schedule, t = CosineCont(), per_image([0.05, 0.5, 0.95])
    x_t = noised(known, schedule, t).float()
    denoiser = known.denoiser(schedule, TARGETS["v"])
    got, true = denoiser.predict(x_t, t.float()), denoiser.predict(x_t.double(), t.float().double())
    assert got.dtype == torch.float32
    assert_close(got.double(), true, rtol=1e-6, atol=1e-6)


@every_reference
def test_noise_alone_gives_the_mean_and_almost_no_noise_the_image(known: Reference) -> None:
    x = torch.full((1, math.prod(known.shape)), 0.4)
    level = torch.full((1, 1), 1.0)
    x0, eps = known.conditional_mean(x, 0 * level, level)
    assert_close(eps, x)
    mean = known.centre if isinstance(known, FiniteData) else known.weights @ known.means  # type: ignore[attr-defined]
    assert_close(x0[0], mean)
    x0, _ = known.conditional_mean(x0, level, 1e-8 * level)
    assert x0.isfinite().all()


def test_degenerate_covariances_have_no_variance_where_eigenvalues_are_rounding_noise() -> None:
    direction = torch.tensor([[1.0, 2.0, 3.0, -1.0]]) / 3
    line = Gaussian(torch.zeros(1, 2, 2), direction.T @ direction)
    value, stderr = line.bayes_eps(torch.tensor([[40.0, 80.0]]))
    assert value.shape == stderr.shape == (1, 2)
    assert_close(value, torch.ones(1, 2), rtol=1e-12, atol=0)


def test_points_may_be_given_as_a_mixture_or_as_images() -> None:
    points = torch.tensor([-1.0, 0.2, 1.0, 1.0]).reshape(4, 1, 1, 1)
    weights = torch.tensor([0.25, 0.25, 0.5])
    mixture = Mixture(weights, points[:3], torch.zeros(3, 1, 1))
    (one, stderr), (other, _) = mixture.bayes_eps(LOG_SNR), FiniteData(points).bayes_eps(LOG_SNR)
    assert_close(one, other, rtol=0, atol=1e-9)
    assert (stderr == 0).all()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0])
def test_many_images_are_a_mixture_of_points(sigma: float) -> None:
    data = photographs(60)
    mixture = Mixture(torch.full((60,), 1 / 60), data, torch.zeros(60, 18, 18))
    x, levels = torch.randn(9, 18) * sigma, (torch.full((9, 1), 0.8), torch.full((9, 1), sigma))
    finite = FiniteData(data)
    assert_close(
        finite.conditional_variance(x, *levels), mixture.conditional_variance(x, *levels), rtol=1e-9, atol=1e-12
    )
    for one, other in zip(finite.conditional_mean(x, *levels), mixture.conditional_mean(x, *levels), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_two_images_are_as_hard_to_distinguish_as_two_numbers(gap: float) -> None:
    """All that matters is their distance: a sampled curve in 12 dimensions, an exact one in 1.

    A third image far away is distinguished from both at once. Next to its distance, that of the pair must not
    be lost to rounding.
    """
    data = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2).repeat(3, 1, 1, 1)
    data[1, 0] += gap / 2
    data[2] *= -1
    log_snr = torch.tensor([-3.0, 0.0, 2.0]) - 2 * math.log(gap)
    value, stderr = FiniteData(data).bayes_eps(log_snr)
    exact, _ = FiniteData(torch.tensor([0.0, gap]).reshape(2, 1, 1, 1)).bayes_eps(log_snr)
    assert ((value - 2 / 3 * exact).abs() <= 4 * stderr).all()
    assert (stderr <= 0.05 * exact).all()


def test_duplicates_are_one_image() -> None:
    """With hardly any noise left they are still not distinguished, and need not be: no rounding is magnified."""
    twice = FiniteData(photographs(9).repeat(2, 1, 1, 1) / 3)
    value, _ = twice.bayes_eps(torch.tensor([20.0, 30.0, 40.0]))
    assert (value < 1e-6).all()


def test_sampling_agrees_with_quadrature_where_both_apply() -> None:
    """Independent pixels add up, so two Gaussian ones beside a bimodal one change nothing but the sum."""
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([[0.5, -1.0, 0.0], [0.5, 1.0, 0.0]])
    covariances = torch.diag_embed(torch.tensor([[1e-3, 0.04, 0.25], [1e-3, 0.09, 0.25]]))
    value, stderr = Mixture(weights, means[:, None, None], covariances).bayes_eps(LOG_SNR)
    beside = Gaussian(means[:1, None, ::2], covariances[0, ::2, ::2])
    exact = named("gmm1d_two").bayes_eps(LOG_SNR)[0] + beside.bayes_eps(LOG_SNR)[0]
    assert (stderr > 0).any()
    assert ((value - exact).abs() <= 4 * stderr + 1e-12).all()


def test_the_curve_integrates_to_the_entropy() -> None:
    """I-MMSE (Guo, Shamai & Verdu 2005): h = log(2 pi e) / 2 + int [mmse_eps - 1 / (1 + exp(-lam))] dlam / 2."""
    log_snr = torch.linspace(-45, 45, 601)
    excess = named("gmm1d_two").bayes_eps(log_snr)[0] - torch.sigmoid(log_snr)
    entropy = math.log(2 * math.pi * math.e) / 2 + torch.trapezoid(excess, log_snr).item() / 2
    assert entropy == pytest.approx(0.7040959954594769, abs=1e-8)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: Mixture(torch.tensor([0.5, 0.4]), torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1)), "probabilities"),
        (lambda: Mixture(torch.ones(1), torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2)), "D = C H W"),
        (lambda: Gaussian(torch.zeros(1, 1, 2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "J\\^T J"),
        (lambda: Gaussian(torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: FiniteData(torch.zeros(0, 1, 2, 2)), "at least one"),
    ],
)
def test_what_is_no_distribution_raises(broken: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken()


def test_images_of_another_shape_raise() -> None:
    denoiser = REFERENCES["finite"].denoiser(Rectified(), Epsilon())
    with pytest.raises(ValueError, match="exact for"):
        denoiser(torch.zeros(2, 2, 3, 4), per_image([0.5, 0.5]))


def test_the_log_density_is_that_of_another_program() -> None:
    known = lopsided_but_dense()
    x = torch.randn(5, 1, 2, 2) / 2
    for noise in (0.0, 0.3):
        each = [
            torch.as_tensor(
                scipy.stats.multivariate_normal(mean, covariance + noise**2 * torch.eye(4)).logpdf(x.flatten(1))
            )
            for mean, covariance in zip(known_means(), DENSE, strict=True)
        ]
        wanted = torch.stack([w.log() + part for w, part in zip(WEIGHTS, each, strict=True)]).logsumexp(0)
        log_snr = -2 * math.log(noise) if noise else math.inf
        assert_close(known.log_density(x, log_snr), wanted, rtol=1e-10, atol=1e-10)


WEIGHTS = torch.tensor([0.25, 0.75], dtype=torch.float64)
DENSE = [torch.diag(torch.tensor([0.3, 0.1, 0.2, 0.5], dtype=torch.float64)), 0.1 * torch.eye(4).double() + 0.05]


def known_means() -> Tensor:
    return torch.tensor([[0.1, -0.4, 0.2, 0.0], [-0.3, 0.5, 0.1, 0.2]], dtype=torch.float64)


def lopsided_but_dense() -> Mixture:
    return Mixture(WEIGHTS, known_means().reshape(2, 1, 2, 2), torch.stack(DENSE))


def test_only_synthetic_data_has_a_known_density() -> None:
    digits = Digits8().load()
    known = known_density(digits)
    assert known is not None
    assert_close(known.bayes_eps(LOG_SNR[:2])[0], curve("digits8")[0][:2])
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    assert known_density(ImageData("black", pixels, pixels)) is None
