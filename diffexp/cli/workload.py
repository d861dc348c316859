"""What a training run asks of a machine: counted from its network, and timed for a few seconds on its device."""

import contextlib
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffexp.denoiser import Denoiser
from diffexp.report.format import counted
from diffexp.schedule import Schedule
from diffexp.targets import Estimate
from diffexp.training.devices import seeded
from diffexp.training.module import DiffusionModule, StepLoader
from diffexp.training.setup import Setup
from diffexp.training.train import make_trainer, quiet

#: Seconds that are timed, after the warm-up, and steps of the warm-up.
_SECONDS, _WARM_UP = 2.0, 2


@dataclass(frozen=True)
class Workload:
    """Counted, not timed.

    Attributes:
        parameters: Of the network.
        flops_per_step: Floating-point operations of the network's forward and backward pass over one batch: matrix
            products, convolutions and attention, a multiplication and an addition as two.
        validated: Images that the network is asked about in all validations and pictures on the way.
        sampled: The same for the last samples and their metrics.
    """

    parameters: int
    flops_per_step: int
    validated: int
    sampled: int


@dataclass(frozen=True)
class Speed:
    """Timed on a device.

    Attributes:
        seconds_per_image: Of a training step.
        seconds_per_answer: Of the network alone, without gradient.
        steps: How many training steps were timed.
        batch: Images in each: fewer than the run's where a whole batch would have taken seconds.
        device: On what.
    """

    seconds_per_image: float
    seconds_per_answer: float
    steps: int
    batch: int
    device: str

    def said(self, batch_size: int) -> str:
        """ "12 steps timed (cpu, 1 thread)", for a run of this batch size."""
        of = f" of {self.batch} images" if self.batch != batch_size else ""
        return f"{counted(self.steps, 'step')}{of} timed ({self.device})"


def workload(cfg: DictConfig, parts: Setup, denoiser: Denoiser) -> Workload:
    """What the run of this configuration will do."""
    steps, every, grids = int(cfg.trainer.max_steps), int(cfg.validation.every), cfg.sampling.every
    evaluations = _evaluations(parts)
    validations = -(-steps // every) + 1  # before the first step, and after the last one
    pictures = -(-steps // int(grids)) - 1 if grids else 0
    grid, judged = int(cfg.sampling.grid), int(getattr(parts.metric, "count", 0))
    return Workload(
        parameters=sum(p.numel() for p in denoiser.network.parameters()),
        flops_per_step=step_flops(denoiser, parts, int(cfg.training.batch_size)),
        validated=validations * int(cfg.validation.count) * (3 if cfg.validation.bound else 1)
        + pictures * grid * evaluations,
        sampled=((2 if parts.sampler.clip else 1) * grid + judged) * evaluations,
    )


def step_flops(denoiser: Denoiser, parts: Setup, batch_size: int) -> int:
    """Of a forward and a backward pass over `batch_size` images; see `Workload`.

    Counted over two images, for all that is counted is in proportion to them.
    """
    x0 = parts.data.heldout(few := min(2, batch_size)).to(next(denoiser.network.parameters()).device)
    t = torch.full((few, 1, 1, 1), sum(parts.times.range(parts.schedule)) / 2, device=x0.device)
    # The fused kinds of attention are not all known to the counter; plain matrix products are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        error = denoiser.predict(x0, _on_grid(parts.schedule, t)).square().mean()
        cast(Any, error).backward()
    denoiser.network.zero_grad()
    return counter.get_total_flops() * batch_size // few


def measured_speed(
    cfg: DictConfig,
    parts: Setup,
    denoiser: Denoiser,
    where: torch.device,
    threads: int | None = None,
    seconds: float = _SECONDS,
) -> Speed:
    """Trains for some `seconds` after a warm-up, and asks the network without gradient for half as long.

    On a CPU with so many `threads`; None: as many as torch has. The networks are not compiled for it. Nothing is
    written.
    """
    with _threads(threads):
        return _measured(cfg, parts, denoiser, where, seconds)


def device_name(where: torch.device) -> str:
    """As run.json has it."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"


def _measured(cfg: DictConfig, parts: Setup, denoiser: Denoiser, where: torch.device, seconds: float) -> Speed:
    batch = int(cfg.training.batch_size)
    began = time.perf_counter()
    _train(cfg, parts, denoiser, where, 1, 0.0, warm_up=0)
    alone = time.perf_counter() - began  # with all that a first step must set up
    batch = max(1, min(batch, int(batch if alone < 1 else seconds / alone * 4)))
    pace, steps = _train(cfg, parts, denoiser, where, batch, seconds, _WARM_UP)
    answer = _answer_seconds(parts, denoiser, where, batch, seconds / 2)
    on = device_name(where) if where.type == "cuda" else f"cpu, {counted(torch.get_num_threads(), 'thread')}"
    return Speed(pace / batch, answer, steps, batch, on)


@contextlib.contextmanager
def _threads(number: int | None) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    cfg: DictConfig,
    parts: Setup,
    denoiser: Denoiser,
    where: torch.device,
    batch: int,
    seconds: float,
    warm_up: int,
) -> tuple[float, int]:
    """Seconds of a training step, and how many were timed."""
    module = DiffusionModule(
        denoiser,
        parts.objective,
        parts.times,
        parts.data.to(where),
        seed=cfg.seed,
        optimizer=parts.optimizer,
        batch_size=batch,
        warmup_steps=cfg.training.warmup_steps,
        ema_decay=cfg.training.ema_decay,
    )
    watch = _Stopwatch(where, seconds, warm_up)
    clip = cfg.trainer.get("gradient_clip_val")
    with quiet(), seeded(0):
        trainer = make_trainer(parts, where, max_epochs=1, gradient_clip_val=clip, callbacks=[watch])
        trainer.fit(module, datamodule=StepLoader(10_000))
    return watch.total / watch.steps, watch.steps


class _Stopwatch(pl.Callback):
    """Times steps after the warm-up until the seconds have passed."""

    def __init__(self, where: torch.device, seconds: float, warm_up: int) -> None:
        self.where, self.seconds, self.warm_up = where, seconds, warm_up
        self.steps, self.total = 0, 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up:
            _wait(self.where)
            self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx < self.warm_up or time.perf_counter() - self.began < self.seconds:
            return
        _wait(self.where)
        self.steps, self.total = batch_idx + 1 - self.warm_up, time.perf_counter() - self.began
        trainer.should_stop = True


@torch.no_grad()
def _answer_seconds(parts: Setup, denoiser: Denoiser, where: torch.device, batch: int, seconds: float) -> float:
    """Seconds of an answer about one image, `batch` at a time."""
    denoiser = denoiser.to(where).eval()
    x = torch.zeros(batch, *parts.data.image_shape, device=where)
    t = _on_grid(parts.schedule, torch.full((batch, 1, 1, 1), 0.5, device=where))
    denoiser.predict(x, t)
    _wait(where)
    began, asked = time.perf_counter(), 0
    while not asked or time.perf_counter() - began < seconds:
        denoiser.predict(x, t)
        asked += 1
    _wait(where)
    return (time.perf_counter() - began) / (asked * batch)


def _evaluations(parts: Setup) -> int:
    """How often the sampler asks the network about one sample."""
    believes_in_nothing = _Nothing(parts.schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts.sampler(cast(Any, believes_in_nothing), torch.zeros(1, 1, 1, 1), torch.Generator())
    return parts.sampler.nfe


class _Nothing:
    """Believes that every image is grey: samplers only need to be asked how often they ask."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        sigma = self.schedule.sigma(t).to(x_t.dtype)
        return Estimate(torch.zeros_like(x_t), x_t / sigma, -x_t / sigma.square())


def _on_grid(schedule: Schedule, t: Tensor) -> Tensor:
    """A time that a chain has, too."""
    return (t * schedule.steps).round() / schedule.steps


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
