"""The gradient's norm and noise per band of log-SNR, against values by hand."""

import itertools
import math

import pytest
import torch
from catalogue import every_schedule, per_image
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn
from torch.testing import assert_close

from diffexp.data.glyphs import Digits8
from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.gradients.statistics import BandGradients, gradients_by_band
from diffexp.objective import Objective
from diffexp.oracle import Mixture
from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.targets import X0, Epsilon, ScaledNoise, StepNoise, Target, UnitStepNoise, V
from diffexp.times import LogitNormal, LogNormal, Times, Uniform

CHAIN = LinearBeta()
PIXELS = torch.tensor([-0.5, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
"""Two images of one pixel, of mean 1/4 and mean square 5/8."""


class Line(nn.Module):
    """slope x + offset."""

    def __init__(self, slope: float = 0.4, offset: float = 0.1) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(offset))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.slope * x + self.offset


class Offset(nn.Module):
    """The output of another network, plus one weight per pixel, all zero."""

    def __init__(self, other: nn.Module | None, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.other, self.offset = other, nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.offset + (self.other(x, t) if self.other else torch.zeros_like(x))


def measured(network: nn.Module, target: Target, x0: Tensor = PIXELS, **settings: object) -> BandGradients:
    """On the DDPM chain with uniform times, unless said otherwise."""
    times, objective = settings.pop("times", Uniform()), settings.pop("objective", Objective(target))
    schedule = settings.pop("schedule", CHAIN)
    return gradients_by_band(Denoiser(network, schedule, target), objective, x0, times, **settings)  # type: ignore


def line_by_hand(target: Target, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Mean (slope, offset) and the trace of the covariance of the gradient of `Line` on `PIXELS`, by quadrature."""
    t = per_image([k / 1000 for k in range(1, 1001)])
    log_snr = CHAIN.log_snr(t)
    t = t[((log_snr >= low) & (log_snr < high)).flatten()]
    nodes, weights = (torch.as_tensor(part) for part in hermegauss(8))
    eps, xi = nodes.reshape(-1, 1, 1), nodes.reshape(-1, 1)
    chance = (weights.reshape(-1, 1, 1) * weights.reshape(-1, 1) / (2 * math.pi)).expand(8, 8, 2) / 2
    x0 = PIXELS.flatten()
    x = CHAIN.alpha(t) * x0 + CHAIN.sigma(t) * eps
    a, b, c = target.coefficients(CHAIN, t)
    error = 0.4 * x + 0.1 - (a * x0 + b * eps + c * xi)
    slope, offset = 2 * error * x, 2 * error
    mean = torch.stack([(chance * part).sum((1, 2, 3)).mean() for part in (slope, offset)])
    square = (chance * (slope.square() + offset.square())).sum((1, 2, 3)).mean()
    return mean, square - mean.square().sum()


@pytest.mark.parametrize("target", [Epsilon(), X0(), V(), UnitStepNoise()], ids=repr)
def test_norm_variance_and_cosine_of_a_line_are_those_by_hand(target: Target) -> None:
    bands = (-10, -4, 0, 4, 8)
    found = measured(Line(), target, bands=bands, batches=100, batch_size=200)
    wanted = [line_by_hand(target, low, high) for low, high in itertools.pairwise(bands)]
    for band, (mean, variance) in zip(found.bands, wanted, strict=True):
        assert abs(band.norm_squared - mean.square().sum()) < 4 * band.norm_squared_stderr
        assert abs(band.variance - variance) < 4 * band.variance_stderr
        assert band.variance_stderr < 0.25 * variance
        assert band.noise_scale == pytest.approx(band.variance / band.norm_squared)
    means = torch.stack([mean / mean.norm() for mean, _ in wanted])
    assert_close(torch.tensor(found.cosine), means @ means.T, rtol=0, atol=0.15)
    off = (torch.tensor(found.cosine) - means @ means.T).abs()
    assert (off <= 4 * torch.tensor(found.cosine_stderr) + 1e-3).all()


def test_the_whole_is_the_gradient_of_the_training_loss() -> None:
    """Its mean over all times, with its own noise scale; shares are probability times norm."""
    target, bands = Epsilon(), (-12, -4, 0, 4, 10)
    found = measured(Line(), target, bands=bands, batches=100, batch_size=200)
    mean, _ = line_by_hand(target, -100, 100)
    within = [line_by_hand(target, low, high) for low, high in itertools.pairwise(bands)]
    p = torch.tensor([band.probability for band in found.bands])
    assert found.whole.probability == pytest.approx(1)
    assert abs(found.whole.norm_squared - mean.square().sum()) < 4 * found.whole.norm_squared_stderr
    variance = (p * torch.stack([variance for _, variance in within])).sum()
    assert abs(found.whole.variance - variance) < 4 * found.whole.variance_stderr < 0.5 * variance
    pull = p * torch.stack([mean.norm() for mean, _ in within])
    assert_close(torch.tensor([band.share for band in found.bands]), pull / pull.sum(), rtol=0.05, atol=0)


AT_THE_OPTIMUM = {"times": Uniform(0.4, 0.4005), "bands": (-20, 20), "batches": 16, "batch_size": 16}
"""Step 400 alone, and eps is predicted by zero plus an offset: the offset's best value is its own, zero."""


def test_a_gradient_that_is_zero_on_average_has_norm_zero_whatever_its_noise() -> None:
    """The square of the mean over batches would be variance / images, 22 standard errors from zero in every band; and
    bands whose noise was shared would agree.
    """
    x0 = torch.zeros(1, 1, 32, 32)
    found = measured(Offset(None, (1, 32, 32)), Epsilon(), x0, bands=(-20, -2, 20), batches=16, batch_size=16)
    variance = 4 / 1024  # of (2 / pixels) (prediction - eps), over all pixels
    scatter = variance / 256 * math.sqrt(2 / 1024)
    for band in found.bands:
        assert band.variance == pytest.approx(variance, rel=0.02)
        assert abs(band.norm_squared) < 4 * scatter
        assert band.least_noise_scale > 1000
    assert abs(found.whole.norm_squared) < 4 * scatter


def test_noise_does_not_hide_the_agreement_of_two_bands() -> None:
    """A weight off by as much for all noise levels: the cosine is 1, where that of the means over batches is 0.4."""
    network = Offset(None, (1, 32, 32))
    with torch.no_grad():
        network.offset += 0.05
    found = measured(network, Epsilon(), torch.zeros(1, 1, 32, 32), bands=(-20, -2, 20), batches=16, batch_size=16)
    assert found.cosine[0][1] == pytest.approx(1, abs=0.2)
    assert found.cosine_stderr[0][1] < 0.15
    assert found.bands[0].norm == pytest.approx(2 / 1024 * 0.05 * 32, rel=0.1)


def test_standard_errors_are_the_scatter_over_seeds() -> None:
    runs = [measured(Line(), Epsilon(), bands=(-4, 0, 4), batches=16, batch_size=20, seed=seed) for seed in range(30)]
    cosine = torch.tensor([(run.cosine[0][1], run.cosine_stderr[0][1]) for run in runs])
    numbers = [(r.bands[0].norm_squared, r.bands[0].norm_squared_stderr) for r in runs]
    others = [(r.bands[0].variance, r.bands[0].variance_stderr) for r in runs]
    wholes = [(r.whole.snr, r.whole.snr_stderr) for r in runs]
    for pairs in (cosine, torch.tensor(numbers), torch.tensor(others), torch.tensor(wholes)):
        assert pairs[:, 1].square().mean().sqrt() == pytest.approx(pairs[:, 0].std().item(), rel=0.35)


@pytest.mark.parametrize(("step", "factor"), [(2, 1.9), (10, 10.6), (100, 596), (500, 6020)])
def test_label_noise_multiplies_the_variance_at_the_optimum(step: int, factor: float) -> None:
    """By 1 + c^2 dim / (b^2 mmse_eps), on the mixture `digits8`; the rest is that of the exact denoiser's error."""
    data = Digits8().load()
    exact = Mixture(data.weights, data.means, data.covariances).denoiser(CHAIN, StepNoise()).network
    x0, t = data.batch(Draws(0), 0, 2000).double(), step / 1000
    settings = {"times": Uniform(t, t + 5e-4), "bands": (-20, 20), "batches": 64, "batch_size": 64}
    found = measured(Offset(exact, (1, 8, 8)), StepNoise(), x0, **settings).whole
    assert 1 / (1 - found.label_noise) == pytest.approx(factor, rel=0.1)
    c = StepNoise().coefficients(CHAIN, per_image([t])).c.item()
    assert found.variance * found.label_noise == pytest.approx(4 * c**2 / 64, rel=0.03)


def test_label_noise_leaves_the_mean_gradient_alone() -> None:
    """unit_step_noise is b eps + c xi; b is all that differs from epsilon in the gradient of an offset of 1."""
    settings = {**AT_THE_OPTIMUM, "batch_size": 1000, "batches": 32}
    network = Offset(None, (1, 1, 1))
    with torch.no_grad():
        network.offset += 1
    plain, noisy = (measured(network, target, PIXELS, **settings).whole for target in (Epsilon(), UnitStepNoise()))
    b = UnitStepNoise().coefficients(CHAIN, per_image([0.4])).b.item()
    assert plain.norm_squared == pytest.approx(4, rel=0.02)
    assert noisy.norm_squared == pytest.approx(4, rel=0.02 * b)
    assert noisy.label_noise == pytest.approx(1 - b**2, abs=4 * b**2)
    assert abs(noisy.variance - 4) < 4 * noisy.variance_stderr
    assert plain.label_noise == 0


def test_two_spaces_differ_by_their_scale_on_the_same_draws() -> None:
    """At one time: sigma^2 in the gradient, sigma^4 in squares, nothing in noise scale or label noise."""
    settings = {**AT_THE_OPTIMUM, "batches": 4}
    plain = measured(Line(), Epsilon(), **settings).whole
    scaled = measured(Line(), Epsilon(), objective=Objective(Epsilon(), ScaledNoise()), **settings).whole
    divided = measured(Line(), Epsilon(), loss_scale=3.0, **settings).whole
    sigma = CHAIN.sigma(per_image([0.4])).item()
    for other, factor in ((scaled, sigma**2), (divided, 1 / 3)):
        assert other.norm == pytest.approx(factor * plain.norm, rel=1e-9)
        assert other.variance == pytest.approx(factor**2 * plain.variance, rel=1e-9)
        assert other.noise_scale == pytest.approx(plain.noise_scale, rel=1e-9)


@every_schedule
@pytest.mark.parametrize("times", [Uniform(), LogitNormal(), LogNormal(), Uniform(0.2, 0.7)], ids=repr)
def test_bands_hold_the_training_times_that_fall_into_them(schedule: Schedule, times: Times) -> None:
    """Against counting; and the network is evaluated at no other times."""
    u = (torch.arange(200_000) + 0.5) / 200_000
    log_snr = schedule.log_snr(times(schedule, u)).flatten()
    spy = Spy(schedule)
    found = measured(spy, Epsilon(), schedule=schedule, times=times, batches=3, batch_size=16)
    for band in found.bands:
        share = ((log_snr >= band.low) & (log_snr < band.high)).double().mean().item()
        assert band.probability == pytest.approx(share, abs=2e-5)
        inside = spy.log_snr[(spy.log_snr >= band.low) & (spy.log_snr < band.high)]
        assert len(inside) == 3 * 16
    assert len(spy.log_snr) == 3 * 16 * len(found.bands)
    assert found.whole.probability == pytest.approx(1, abs=1e-4)


class Spy(Line):
    """Records the noise levels of its inputs."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.log_snr = schedule, torch.zeros(0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.log_snr = torch.cat([self.log_snr, self.schedule.log_snr(t).flatten()])
        return super().forward(x, t)


class Dropping(nn.Module):
    """A small convolution with dropout, part of it frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Dropout(), nn.Conv2d(8, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(x)


GREYS = torch.linspace(-1, 1, 160, dtype=torch.float64).reshape(10, 1, 4, 4)
SMALL = {"batches": 4, "batch_size": 64, "bands": (-4, 0, 4), "x0": GREYS}


def test_the_network_is_restored_and_evaluated_without_dropout() -> None:
    network = Dropping().train()
    network.layers[1].eval()
    network.layers[0].requires_grad_(False)
    weights = [weight.clone() for weight in network.parameters()]
    with torch.no_grad():
        once, again = (measured(network, Epsilon(), **SMALL) for _ in range(2))
    assert once == again
    assert [part.training for part in network.layers] == [True, False, True, True]
    assert [weight.requires_grad for weight in network.parameters()] == [False, False, True, True]
    assert all(weight.grad is None for weight in network.parameters())
    assert all(map(torch.equal, network.parameters(), weights))
    assert measured(network.requires_grad_(True), Epsilon(), **SMALL) != once  # more weights, more gradient


def test_a_frozen_copy_is_measured_like_the_network_itself() -> None:
    network = Dropping()
    free = measured(network, Epsilon(), **SMALL)
    assert measured(network.requires_grad_(False), Epsilon(), **SMALL) == free
    assert not any(weight.requires_grad for weight in network.parameters())


def test_autocast_changes_the_numbers_by_bfloat16_rounding_alone() -> None:
    network, x0 = Dropping().float(), GREYS.float()
    settings = {"batches": 4, "batch_size": 64}
    plain, rounded = (
        gradients_by_band(Denoiser(network, Rectified(), V(), dtype), Objective(V()), x0, Uniform(), **settings).whole
        for dtype in (None, torch.bfloat16)
    )
    assert rounded != plain
    assert rounded.norm == pytest.approx(plain.norm, rel=0.02)
    assert rounded.variance == pytest.approx(plain.variance, rel=0.02)


def test_too_few_batches_and_bands_without_times_raise() -> None:
    with pytest.raises(ValueError, match=r"batches=2 batch_size=128: .* at least 3"):
        measured(Line(), Epsilon(), batches=2)
    with pytest.raises(ValueError, match=r"bands=\[12, 14\]: no training time"):
        measured(Line(), Epsilon(), bands=(12, 14))
