"""The flow's likelihood on normal data, where its map is known, and on a mixture, where its density is."""

import math

import pytest
import torch
from catalogue import SCHEDULES, TARGETS, every_schedule
from torch import Tensor
from torch.testing import assert_close

from diffexp.likelihood.bound import log_probability_of_8_bit
from diffexp.likelihood.flow import flow_nll
from diffexp.oracle import Gaussian, Mixture
from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.targets import V

MEAN, VARIANCE = torch.tensor([[[0.3, -0.6, 0.0]]]), torch.tensor([0.2, 0.0025, 1.0])
PIXELS = Gaussian(MEAN, torch.diag(VARIANCE))


def draw(count: int) -> Tensor:
    return MEAN + VARIANCE.sqrt() * torch.randn(count, 1, 1, 3)


def exact_nll(schedule: Schedule, x0: Tensor, times: tuple[float, float] | None = None) -> Tensor:
    """x0 - mean is carried in proportion to the marginal's standard deviation."""
    t = torch.tensor(times or schedule.time_range).reshape(2, 1, 1, 1)
    low, high = (-schedule.log_snr(t)).exp().flatten()  # (sigma / alpha)^2
    stretch = ((VARIANCE + high) / (VARIANCE + low)).sqrt()
    end = MEAN + stretch * (x0 - MEAN)
    prior = torch.distributions.Normal(0.0, high.sqrt())
    return -(prior.log_prob(end) + stretch.log()).mean((1, 2, 3))


@every_schedule
def test_normal_data_have_their_exact_likelihood(schedule: Schedule) -> None:
    x0 = draw(20)
    got = flow_nll(PIXELS.denoiser(schedule, V()), x0)
    assert_close(got.nats, exact_nll(schedule, x0), rtol=0, atol=5e-4)
    assert (got.stderr < 1e-12).all(), "random signs see a diagonal Jacobian exactly"


def test_the_flow_may_start_and_end_elsewhere() -> None:
    x0, schedule = draw(5), Rectified()
    got = flow_nll(PIXELS.denoiser(schedule, V()), x0, 20, t_start=0.6, t_end=0.05)
    assert_close(got.nats, exact_nll(schedule, x0, (0.05, 0.6)), rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_the_same_flow(name: str) -> None:
    x0, schedule = draw(3), Rectified()
    got, wanted = (flow_nll(PIXELS.denoiser(schedule, target), x0, 5).nats for target in (TARGETS[name], V()))
    assert_close(got, wanted, rtol=1e-7, atol=1e-7)


def test_the_error_falls_as_the_fourth_power_of_the_stride() -> None:
    x0, schedule = draw(10), Rectified()
    off = [
        (flow_nll(PIXELS.denoiser(schedule, V()), x0, steps=n).nats - exact_nll(schedule, x0)).abs().mean().item()
        for n in (15, 30, 60)
    ]
    orders = [math.log2(off[0] / off[1]), math.log2(off[1] / off[2])]
    assert orders == pytest.approx([4, 4], abs=0.3)


def test_probes_see_correlated_pixels_on_average_and_say_how_well() -> None:
    root = torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.2, 0.0], [-0.2, 0.1, 0.1]])
    turned, straight = Gaussian(torch.zeros(1, 1, 3), root @ root.T), torch.linalg.eigh(root @ root.T)
    aligned = Gaussian(torch.zeros(1, 1, 3), torch.diag(straight.eigenvalues))
    x0 = (torch.randn(1, 3) @ root.T).reshape(1, 1, 1, 3)
    got = flow_nll(turned.denoiser(LinearBeta(), V()), x0, steps=15, draws=400)
    along = (x0.flatten() @ straight.eigenvectors).reshape(1, 1, 1, 3)
    exact = flow_nll(aligned.denoiser(LinearBeta(), V()), along, steps=15)
    assert (got.stderr > 1e-3).all()
    assert ((got.nats - exact.nats).abs() <= 4 * got.stderr).all()


def test_the_flow_of_a_mixture_has_the_mixtures_density() -> None:
    weights, means, variances = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0]), torch.tensor([0.04, 0.09])
    data = Mixture(weights, means[:, None, None, None], variances[:, None, None])
    x0 = torch.linspace(-1.6, 1.8, 15).reshape(-1, 1, 1, 1)
    low = (1e-3 / (1 - 1e-3)) ** 2
    density = torch.distributions.Normal(means, (variances + low).sqrt()).log_prob(x0.reshape(-1, 1)).exp() @ weights
    got = flow_nll(data.denoiser(Rectified(), V()), x0, steps=60)
    assert_close(got.nats, -density.log(), rtol=0, atol=2e-3)


def test_dequantised_nats_count_8_bit_values() -> None:
    x0 = torch.tensor([[147, 140, 155]]).reshape(1, 1, 1, 3) / 127.5 - 1
    wide = Gaussian(torch.zeros(1, 1, 3), 0.01 * torch.eye(3))
    got = flow_nll(wide.denoiser(Rectified(), V()), x0, steps=20, draws=200, dequantize=True)
    mass = -log_probability_of_8_bit(x0, torch.zeros_like(x0), 0.1).mean((1, 2, 3))
    assert (got.stderr > 0).all()
    assert ((got.nats - mass).abs() <= 4 * got.stderr + 2e-3).all()


def test_float32_images_give_the_same_likelihood() -> None:
    x0 = draw(5)
    denoiser = PIXELS.denoiser(SCHEDULES["linear_beta"], V())
    assert_close(flow_nll(denoiser, x0.float(), 20).nats, flow_nll(denoiser, x0, 20).nats, rtol=0, atol=1e-4)


def test_one_draw_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="2 draws"):
        flow_nll(PIXELS.denoiser(Rectified(), V()), draw(1), draws=1)
