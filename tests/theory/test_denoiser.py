"""A denoiser reads its network's answer in any space, and keeps low precision inside the network."""

import pytest
import torch
from catalogue import every_target_and_schedule, images, per_image, times_on
from torch import Tensor, nn
from torch.testing import assert_close

from diffexp.denoiser import Denoiser
from diffexp.schedule import LinearBeta, Schedule
from diffexp.targets import X0, Epsilon, PosteriorMean, Target


class Knows(nn.Module):
    """Answers with what it was told, and remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked = x, t
        return self.answer


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
    network = Knows(target.draw(schedule, t, x0, eps, torch.zeros_like(x0)))
    belief = Denoiser(network, schedule, target)(x_t, t)
    slack = 1e-11 * (1 + 1 / target.gain(schedule, t).abs())
    assert ((belief.x0 - x0).abs() < slack).all()
    assert ((belief.eps - eps).abs() < slack).all()


def test_the_network_is_asked_about_the_unscaled_image_at_the_time_itself() -> None:
    t, network = per_image([0.25, 1.0]), Knows(torch.zeros(2, 2, 3, 3))
    x_t = images(0, t)
    Denoiser(network, LinearBeta(), Epsilon())(x_t, t)
    assert network.asked[0] is x_t
    assert network.asked[1] is t


def test_only_the_network_runs_in_bfloat16() -> None:
    """Reading it as x0 at t = 1 multiplies by 157: in bfloat16 two digits would be left of it."""
    t, network = per_image([1.0, 0.5], torch.float32), Mixer().float()
    x_t = images(0, t).float()
    for target in (Epsilon(), X0(), PosteriorMean()):
        denoiser = Denoiser(network, LinearBeta(), target, autocast=torch.bfloat16)
        belief = denoiser(x_t, t)
        assert network.inside.dtype == torch.bfloat16
        assert denoiser.predict(x_t, t).dtype == torch.float32
        exact = target.solve(LinearBeta(), t, x_t.double(), network.inside.double())
        assert all(part.dtype == torch.float32 for part in belief)
        assert_close(belief.x0.double(), exact.x0, rtol=1e-5, atol=1e-3)
    Denoiser(network, LinearBeta(), Epsilon())(x_t, t)
    assert network.inside.dtype == torch.float32


def test_gradients_reach_the_network_through_every_reading() -> None:
    t, network = per_image([0.3, 0.9]), Mixer()
    belief = Denoiser(network, LinearBeta(), X0())(images(0, t), t)
    for reading in belief:
        (slope,) = torch.autograd.grad(reading.sum(), network.linear.bias, retain_graph=True)
        assert (slope != 0).all()


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (2, 4, 3, 3), (1, 2, 3, 3), (2, 2, 1, 3)])
def test_an_answer_of_another_shape_is_refused_and_not_broadcast(shape: tuple[int, ...]) -> None:
    t = per_image([0.3, 0.9])
    with pytest.raises(
        ValueError, match=r"Knows answered with shape \(\d, \d, \d, 3\) to images of shape \(2, 2, 3, 3\)"
    ):
        Denoiser(Knows(torch.zeros(shape)), LinearBeta(), Epsilon())(images(0, t), t)


def test_the_networks_parameters_are_the_denoisers() -> None:
    denoiser = Denoiser(Mixer(), LinearBeta(), Epsilon())
    assert {name for name, _ in denoiser.named_parameters()} == {
        "network.linear.weight",
        "network.linear.bias",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_and_answer_share_a_dtype(dtype: torch.dtype) -> None:
    t = per_image([0.5])
    belief = Denoiser(Mixer().to(dtype), LinearBeta(), Epsilon())(images(0, t).to(dtype), t)
    assert all(part.dtype == dtype for part in belief)
