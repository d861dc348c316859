"""A denoiser converts its network's output to any space, and keeps low precision inside the network."""

import pytest
import torch
from catalogue import every_target_and_schedule, images, per_image, times_on
from torch import Tensor, nn
from torch.testing import assert_close

from diffexp.denoiser import Denoiser
from diffexp.schedule import LinearBeta, Schedule
from diffexp.targets import X0, Epsilon, PosteriorMean, Target


class Constant(nn.Module):
    """Returns a fixed tensor, and records its inputs."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inputs = x, t
        return self.output


class Mixer(nn.Module):
    """One linear map over the width."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.inside = self.linear(x)
        return self.inside


@every_target_and_schedule
def test_a_network_that_knows_the_target_is_read_as_knowing_the_image(schedule: Schedule, target: Target) -> None:
    t = times_on(schedule)
    x0, eps = images(0, t), images(1, t)
    x_t = schedule.noised(t, x0, eps)
    network = Constant(target.draw(schedule, t, x0, eps, torch.zeros_like(x0)))
    estimate = Denoiser(network, schedule, target)(x_t, t)
    slack = 1e-11 * (1 + 1 / target.gain(schedule, t).abs())
    assert ((estimate.x0 - x0).abs() < slack).all()
    assert ((estimate.eps - eps).abs() < slack).all()


def test_the_network_gets_the_unscaled_image_and_the_time_itself() -> None:
    t, network = per_image([0.25, 1.0]), Constant(torch.zeros(2, 2, 3, 3))
    x_t = images(0, t)
    Denoiser(network, LinearBeta(), Epsilon())(x_t, t)
    assert network.inputs[0] is x_t
    assert network.inputs[1] is t


def test_only_the_network_runs_in_bfloat16() -> None:
    """Reading it as x0 at t = 1 multiplies by 157: in bfloat16 two digits would be left of it."""
    t, network = per_image([1.0, 0.5], torch.float32), Mixer().float()
    x_t = images(0, t).float()
    for target in (Epsilon(), X0(), PosteriorMean()):
        denoiser = Denoiser(network, LinearBeta(), target, autocast=torch.bfloat16)
        estimate = denoiser(x_t, t)
        assert network.inside.dtype == torch.bfloat16
        assert denoiser.predict(x_t, t).dtype == torch.float32
        exact = target.solve(LinearBeta(), t, x_t.double(), network.inside.double())
        assert all(part.dtype == torch.float32 for part in estimate)
        assert_close(estimate.x0.double(), exact.x0, rtol=1e-5, atol=1e-3)
    Denoiser(network, LinearBeta(), Epsilon())(x_t, t)
    assert network.inside.dtype == torch.float32


def test_gradients_reach_the_network_through_every_reading() -> None:
    t, network = per_image([0.3, 0.9]), Mixer()
    estimate = Denoiser(network, LinearBeta(), X0())(images(0, t), t)
    for part in estimate:
        (slope,) = torch.autograd.grad(part.sum(), network.linear.bias, retain_graph=True)
        assert (slope != 0).all()


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (2, 4, 3, 3), (1, 2, 3, 3), (2, 2, 1, 3)])
def test_an_output_of_another_shape_raises_and_is_not_broadcast(shape: tuple[int, ...]) -> None:
    t = per_image([0.3, 0.9])
    with pytest.raises(
        ValueError, match=r"Constant returned shape \(\d, \d, \d, 3\) for images of shape \(2, 2, 3, 3\)"
    ):
        Denoiser(Constant(torch.zeros(shape)), LinearBeta(), Epsilon())(images(0, t), t)


def test_the_networks_parameters_are_the_denoisers() -> None:
    denoiser = Denoiser(Mixer(), LinearBeta(), Epsilon())
    assert {name for name, _ in denoiser.named_parameters()} == {
        "network.linear.weight",
        "network.linear.bias",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_and_prediction_share_a_dtype(dtype: torch.dtype) -> None:
    t = per_image([0.5])
    estimate = Denoiser(Mixer().to(dtype), LinearBeta(), Epsilon())(images(0, t).to(dtype), t)
    assert all(part.dtype == dtype for part in estimate)
