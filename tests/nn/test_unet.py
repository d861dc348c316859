"""The one U-Net predicts every target from the same start."""

import pytest
import torch
from diffusers import UNet2DModel

from diffexp.nn.unet import UNet
from diffexp.schedule import Edm, LinearBeta, Rectified


def small(**changes: object) -> UNet:
    torch.manual_seed(0)
    given = {"image_shape": (1, 8, 8), "schedule": LinearBeta(), "data_std": 0.5, "widths": [8, 16]}
    given |= {"attention": [False, True], "layers": 1, "groups": 4}
    return UNet(**{**given, **changes})


def perturbed(network: UNet) -> UNet:
    """With a last layer that is not zero any more."""
    torch.nn.init.normal_(network.unet.conv_out.layer.weight)
    return network


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_it_begins_with_the_zero_prediction() -> None:
    assert small()(torch.randn(2, 1, 8, 8), times(0.3, 0.7)).abs().max() == 0


def test_the_ddpm_preset_is_the_published_network_of_35_746_307_parameters() -> None:
    network = UNet(
        image_shape=(3, 32, 32),
        schedule=LinearBeta(),
        data_std=0.5,
        widths=[128, 256, 256, 256],
        attention=[False, True, False, False],
    )
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


@pytest.mark.parametrize("schedule", [LinearBeta(), Rectified(), Edm()], ids=repr)
def test_the_input_is_x_t_at_unit_variance_and_the_time_is_in_the_embeddings_range(schedule: object) -> None:
    network = perturbed(small(schedule=schedule))
    x, t = torch.randn(4, 1, 8, 8), times(0.25, 0.5, 0.5, 0.75)
    variance = schedule.alpha(t) ** 2 * 0.25 + schedule.sigma(t) ** 2
    unet = network.unet
    assert isinstance(unet, UNet2DModel)
    direct = unet(x / variance.sqrt(), 1000 * t.flatten()).sample
    torch.testing.assert_close(network(x, t), direct, rtol=1e-5, atol=1e-5)


def test_without_conditioning_the_time_changes_nothing_but_the_scale() -> None:
    network = perturbed(small(conditioning="none", schedule=Rectified()))
    x = torch.randn(1, 1, 8, 8)
    t, s = times(0.3), times(0.8)
    std = [(0.25 * (1 - u) ** 2 + u**2).sqrt() for u in (t, s)]
    torch.testing.assert_close(network(std[0] * x, t), network(std[1] * x, s))
    informed = perturbed(small(schedule=Rectified()))
    assert (informed(std[0] * x, t) - informed(std[1] * x, s)).abs().max() > 1e-3


def test_odd_sizes_are_padded_and_cropped_around_the_image() -> None:
    network = perturbed(small(widths=[8, 8, 8], attention=[False] * 3))
    x, t = torch.zeros(1, 1, 11, 14), times(0.5)
    x[..., 5, 7] = 1.0
    padded = torch.nn.functional.pad(x, (1, 1, 0, 1))
    torch.testing.assert_close(network(x, t), network(padded, t)[..., :11, 1:15])


def test_attention_per_resolution_must_match_the_widths() -> None:
    with pytest.raises(ValueError, match=r"2 resolutions and network\.attention 3"):
        small(attention=[False] * 3)
