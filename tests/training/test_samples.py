"""Samples are numbered: number 7 starts from the same noise for every run and however many are asked for."""

import pytest
import torch
from catalogue import SCHEDULES, TARGETS
from exact import Exact

from diffexp.samplers import Ancestral, Ddim, Sampler
from diffexp.training.samples import Samples

CPU = torch.device("cpu")


def samples(target: str = "epsilon", sampler: Sampler | None = None, batch_size: int = 6) -> Samples:
    right = Exact(SCHEDULES["linear_beta"], TARGETS[target], 0.0, 0.25)
    return Samples(right, sampler or Ddim(10), (1, 4, 4), CPU, batch_size)


@pytest.mark.parametrize("sampler", [Ddim(5), Ancestral(5)], ids=repr)
def test_a_sample_does_not_depend_on_how_many_are_asked_for(sampler: Sampler) -> None:
    draw = samples(sampler=sampler)
    whole = draw(0, 14)
    torch.testing.assert_close(torch.cat([draw(0, 4), draw(4, 5), draw(9, 5)]), whole, rtol=0, atol=1e-6)
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 14


@pytest.mark.parametrize("sampler", [Ddim(10), Ancestral(10)], ids=repr)
def test_equal_beliefs_draw_equal_images_whatever_the_target(sampler: Sampler) -> None:
    ours, theirs = samples("x0", sampler)(0, 8), samples("score", sampler)(0, 8)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)  # float32, as in use


def test_the_samples_of_the_right_denoiser_have_the_datas_variance() -> None:
    drawn = samples(sampler=Ddim(200), batch_size=600)(0, 600)
    assert drawn.var().item() == pytest.approx(0.25, rel=0.05)
