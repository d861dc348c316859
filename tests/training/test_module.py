"""Training: paired by construction, on the loss it logs, resumable bit for bit."""

import functools
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from catalogue import SCHEDULES, TARGETS
from torch import nn

from diffexp.data import MixtureData
from diffexp.denoiser import Denoiser
from diffexp.objective import Objective
from diffexp.times import Times, Uniform
from diffexp.training.module import DiffusionModule, StepLoader

SCHEDULE = SCHEDULES["linear_beta_cont"]
VARIANCE = 0.25


class Multiple(nn.Module):
    """The best it can do is the best multiple of x_t. Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros((), dtype=torch.float32))
        self.shown: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.shown.append((x.detach().clone(), t.clone()))
        return self.factor * x


def module(target: str, seed: int = 0, times: Times | None = None, **changes: object) -> DiffusionModule:
    data = MixtureData(
        "white", torch.ones(1), torch.zeros(1, 1, 4, 4), covariances=VARIANCE * torch.eye(16).unsqueeze(0)
    )
    given = {
        "denoiser": Denoiser(Multiple(), SCHEDULE, TARGETS[target]),
        "objective": Objective(TARGETS[target]),
        "times": times or Uniform(),
        "data": data,
        "seed": seed,
        "optimizer": functools.partial(torch.optim.AdamW, lr=0.05, weight_decay=0.0),
        "batch_size": 64,
        "warmup_steps": 5,
        "ema_decay": 0.9,
    }
    return DiffusionModule(**{**given, **changes})


def fit(trained: DiffusionModule, steps: int, **settings: object) -> DiffusionModule:
    ckpt_path = settings.pop("ckpt_path", None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", **{"enable_checkpointing": False, **quiet, **settings}
    )
    trainer.fit(trained, datamodule=StepLoader(steps), ckpt_path=ckpt_path)
    return trained


def test_training_finds_the_best_multiple_of_x_t() -> None:
    narrow = Uniform(0.3, 0.3 + 1e-6)
    slow = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0)
    trained = fit(module("x0", times=narrow, optimizer=slow, ema_decay=0.99), 400)
    t = torch.full((1, 1, 1, 1), 0.3)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    wiener = (alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)).item()
    assert trained.ema.network.factor.item() == pytest.approx(wiener, rel=0.03)


def test_all_targets_of_a_seed_see_the_same_images_times_and_noise() -> None:
    one, other = (fit(module(name), 4).denoiser.network.shown for name in ("epsilon", "step_noise"))
    assert len(one) == 4
    for (x, t), (y, s) in zip(one, other, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(t, s)
    another = fit(module("epsilon", seed=1), 1).denoiser.network.shown
    assert not torch.equal(one[0][0], another[0][0])


def test_a_resumed_run_ends_bit_for_bit_where_it_would_have_ended(tmp_path: Path) -> None:
    whole = fit(module("v"), 12)
    first = module("v")
    half = pl.callbacks.ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=6)
    fit(first, 6, callbacks=[half], enable_checkpointing=True)
    resumed = fit(module("v"), 12, ckpt_path=str(tmp_path / "half.ckpt"))
    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    ours, theirs = (m.trainer.optimizers[0].state_dict()["state"][0] for m in (whole, resumed))
    assert torch.equal(ours["exp_avg_sq"], theirs["exp_avg_sq"])


def test_a_checkpoint_holds_tensors_and_plain_values_alone(tmp_path: Path) -> None:
    saved = pl.callbacks.ModelCheckpoint(tmp_path, filename="a", every_n_train_steps=2)
    trained = fit(module("v"), 2, callbacks=[saved], enable_checkpointing=True)
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == {"denoiser.network.factor", "ema.network.factor"}
    assert torch.equal(state["ema.network.factor"], trained.ema.network.factor)


def test_the_optimised_loss_is_scaled_and_the_logged_one_is_not() -> None:
    plain, scaled = fit(module("score"), 1), fit(module("score", loss_scale=100.0), 1)
    assert plain.read_loss() == scaled.read_loss() > 0
    ours, theirs = (m.denoiser.network.factor.grad.item() for m in (plain, scaled))
    assert ours == pytest.approx(100 * theirs)


def test_the_logged_loss_is_the_mean_since_it_was_last_read() -> None:
    trained = module("epsilon")
    losses = [trained.objective(trained.denoiser, *_draws(trained, step)).mean() for step in (0, 1)]
    frozen = functools.partial(torch.optim.SGD, lr=0.0)
    seen = fit(module("epsilon", optimizer=frozen), 2)
    assert seen.read_loss() == pytest.approx(sum(loss.item() for loss in losses) / 2)
    assert seen.read_loss() == 0.0


def test_the_learning_rate_rises_linearly_to_its_value() -> None:
    rates: list[float] = []

    class Listen(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(module("v"), 7, callbacks=[Listen()])
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.05])


def _draws(trained: DiffusionModule, step: int) -> tuple[torch.Tensor, ...]:
    x0 = trained.data.batch(trained.draws, step, 64)
    u = (torch.arange(64) + trained.draws.uniform(64, step, "times")) / 64
    noise = [trained.draws.normal(x0.shape, step, purpose) for purpose in ("eps", "xi")]
    return x0, trained.times(SCHEDULE, u), *noise
