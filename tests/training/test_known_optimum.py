"""A real network on data of known density: training brings it towards the optimum, and never past it."""

import functools
import math

import pytest
import pytorch_lightning as pl
import torch
from catalogue import SCHEDULES, TARGETS

from diffexp.data.glyphs import Digits8
from diffexp.denoiser import Denoiser
from diffexp.nn.unet import UNet
from diffexp.objective import Objective
from diffexp.oracle import known_density
from diffexp.times import Uniform
from diffexp.training.module import DiffusionModule, StepLoader
from diffexp.training.validation import BAND_EDGES, HeldOut

SCHEDULE = SCHEDULES["linear_beta"]


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "scaled_noise"])
def test_training_approaches_the_optimum_and_never_passes_it(target: str) -> None:
    data, kind = Digits8().load(), TARGETS[target]
    known = known_density(data)
    assert known is not None
    held = HeldOut(data, Objective(kind), SCHEDULE, Uniform(), 1500, 500, known)
    torch.manual_seed(0)
    network = UNet(
        image_shape=data.image_shape,
        schedule=SCHEDULE,
        data_std=data.std,
        widths=[8, 16],
        attention=[False, False],
        layers=1,
        groups=4,
    )
    denoiser = Denoiser(network, SCHEDULE, kind)
    before = held.measure(denoiser)
    optimizer = functools.partial(torch.optim.AdamW, lr=4e-3)
    zero = held.zero_loss
    trained = DiffusionModule(denoiser, Objective(kind), Uniform(), data, 0, optimizer, 64, 20, 0.9, loss_scale=zero)
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_steps=150, max_epochs=-1, accelerator="cpu", enable_checkpointing=False, **settings).fit(
        trained, datamodule=StepLoader(150)
    )
    after = held.measure(trained.averaged)
    assert after["val/excess_v"] < 0.6 * before["val/excess_v"]

    # Against the noise itself, as anyone would measure it: the optimum's error may be beaten by luck alone.
    x_t = SCHEDULE.noised(held.t, held.x0, held.eps)
    with torch.no_grad():
        ours = trained.averaged(x_t, held.t).eps.double()
    best = known.denoiser(SCHEDULE, TARGETS["epsilon"])(x_t.double(), held.t).eps
    gap = ((ours - held.eps).square() - (best - held.eps).square()).mean((1, 2, 3))
    log_snr = SCHEDULE.log_snr(held.t).flatten()
    for low in BAND_EDGES[:-1]:
        here = gap[(log_snr >= low) & (log_snr < low + 2)]
        if len(here) > 10:
            stderr = here.std().item() / math.sqrt(len(here))
            assert here.mean().item() > -3 * stderr, low
            excess = after[f"val/excess_eps/lam_{low}_{low + 2}"]
            assert here.mean().item() == pytest.approx(excess, abs=4 * stderr + 1e-6), "the same in expectation"
