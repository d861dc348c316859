"""A time is one number per image: its shape is (batch, 1, 1, 1)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffexp.shapes import require_per_image

EVERYWHERE = """
import torch
from catalogue import SCHEDULES, targets_on
from diffexp.denoiser import Denoiser
from diffexp.objective import Objective

t, x = torch.full((4,), 0.5, dtype=torch.float64), torch.zeros(4, 4, 4, 4, dtype=torch.float64)

def raises(what, call):
    try:
        call()
    except ValueError as error:
        if "(batch, 1, 1, 1)" in str(error):
            return
        print(what, error)
    else:
        print(what, "took a 1-D time")

for name, schedule in SCHEDULES.items():
    for level in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.step):
        raises(f"{name}.{level.__name__}", lambda: level(t))
    raises(f"{name}.noised", lambda: schedule.noised(t, x, x))
    if not schedule.is_chain:
        raises(f"{name}.rates", lambda: schedule.rates(t))
    for word, target in targets_on(schedule).items():
        raises(f"{word}.coefficients on {name}", lambda: target.coefficients(schedule, t))
        raises(f"{word}.gain on {name}", lambda: target.gain(schedule, t))
        raises(f"{word}.draw on {name}", lambda: target.draw(schedule, t, x, x, x))
        raises(f"{word}.solve on {name}", lambda: target.solve(schedule, t, x, x))
        denoiser = Denoiser(torch.nn.Identity(), schedule, target)
        raises(f"{word}.Denoiser on {name}", lambda: denoiser(x, t))
        raises(f"{word}.predict on {name}", lambda: denoiser.predict(x, t))
        raises(f"{word}.Objective on {name}", lambda: Objective(target)(denoiser, x, t, x, x))
print("looked everywhere")
"""


def test_a_one_dimensional_time_raises_everywhere_without_any_shape_checker() -> None:
    """Batch and width are both 4 here, so it would be broadcast along the width. (A process of its own: the
    tests' shape checker would raise first.)"""
    seen = subprocess.run(
        [sys.executable, "-c", EVERYWHERE], cwd=Path(__file__).parents[1] / "support", capture_output=True, text=True
    )
    assert seen.stdout.strip() == "looked everywhere", seen.stdout + seen.stderr


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1), (4, 4, 1, 1), (1, 1, 1, 4), ()])
def test_other_shapes_are_named_and_the_right_one_is_offered(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(batch, 1, 1, 1\)") as raised:
        require_per_image(torch.zeros(shape))
    assert str(shape) in str(raised.value)


def test_one_time_for_many_images_raises() -> None:
    with pytest.raises(ValueError, match=r"3 images but 1 times.*expand\(3, 1, 1, 1\)"):
        require_per_image(torch.zeros(1, 1, 1, 1), torch.zeros(3, 2, 4, 4))
