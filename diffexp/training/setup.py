"""What a run computes, as objects: the parts that a comparison holds fixed or varies."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from diffexp.data.base import Data
from diffexp.denoiser import Denoiser
from diffexp.draws import stream_key
from diffexp.likelihood.bound import Variance
from diffexp.metrics.samples import Metric, NoMetric, PreparedMetric
from diffexp.objective import Objective, zero_prediction_loss
from diffexp.oracle import known_density
from diffexp.samplers import Ddim, Sampler
from diffexp.schedule import LinearBeta, Schedule
from diffexp.targets import Target
from diffexp.times import Times, Uniform
from diffexp.training.devices import resolve_auto, resolve_precision, seeded
from diffexp.training.distributed import World
from diffexp.training.module import DiffusionModule, MakeOptimizer
from diffexp.training.samples import Samples
from diffexp.training.settings import Compute, Sampling, Training, Validation
from diffexp.training.validation import HeldOut
from diffexp.weighting import Uniform as UniformWeighting
from diffexp.weighting import Weighting

MakeNetwork: TypeAlias = Callable[..., nn.Module]
"""`network(image_shape=, schedule=, data_std=)` makes a network with `network(x_t, t)`."""


def default_optimizer() -> MakeOptimizer:
    """That of conf/optimizer/adamw.yaml."""
    return cast(MakeOptimizer, partial(torch.optim.AdamW, lr=2e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything of a run but its seed, its length and where it is kept.

    Attributes:
        target: What the network predicts.
        data: What is learned.
        network: Makes the network.
        schedule: Makes x_t.
        space: The target in whose space the loss is computed; None: `target` ("native").
        weighting: Of the noise levels, in that space.
        times: Density of the training times.
        optimizer: Makes the optimiser from the parameters.
        sampler: Draws the samples; measured with, and no part of what is trained.
        metric: What samples are measured by, likewise.
        normalize: Divide the optimised loss by its zero-prediction value, so that clipping treats targets alike.
        training: Batch size, warm-up, averaging, logging.
        validation: When, and on how many held-out images.
        sampling: When grids of samples are drawn.
        compute: Precision, memory format, compilation.
        trainer: Further arguments of Lightning's Trainer.
    """

    target: Target
    data: Data
    network: MakeNetwork
    schedule: Schedule = field(default_factory=LinearBeta)
    space: Target | None = None
    weighting: Weighting = field(default_factory=UniformWeighting)
    times: Times = field(default_factory=Uniform)
    optimizer: MakeOptimizer = field(default_factory=default_optimizer)
    sampler: Sampler = field(default_factory=lambda: Ddim(steps=50, clip=True))
    metric: Metric = field(default_factory=NoMetric)
    normalize: bool = True
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    sampling: Sampling = field(default_factory=Sampling)
    compute: Compute = field(default_factory=Compute)
    trainer: Mapping[str, Any] = field(default_factory=lambda: {"gradient_clip_val": 1.0})

    @cached_property
    def objective(self) -> Objective:
        """The loss."""
        return Objective(self.target, self.space, self.weighting)

    def to(self, device: torch.device) -> "Setup":
        """The same with its data on another device."""
        return self if self.data.device == device else dataclasses.replace(self, data=self.data.to(device))

    @cached_property
    def zero_loss(self) -> tuple[float, float]:
        """What the zero-prediction baseline costs in training, and the part of it that is irreducible label noise."""
        moment = self.data.heldout(self.data.size("heldout")).square().mean().item()
        return zero_prediction_loss(self.objective, self.schedule, self.times, moment)

    def held_out(self) -> HeldOut:
        """The draws that every network is validated on."""
        return HeldOut(
            self.data,
            self.objective,
            self.schedule,
            self.times,
            self.validation.count,
            self.validation.batch_size,
            known_density(self.data),
            cast(Variance | None, self.validation.bound),
            self.validation.t_start,
        )

    def samples(self, denoiser: Denoiser) -> Samples:
        """A network's samples, from the same noise as every other's."""
        return Samples(denoiser, self.sampler, self.data.image_shape, self.data.device)

    def prepared_metric(self) -> PreparedMetric:
        """The metric with its features and reference statistics, on the data's device."""
        return self.metric.prepare(self.data, self.data.device)

    def denoiser(self, seed: int, device: torch.device) -> Denoiser:
        """A fresh network on `device`, its weights a function of the seed alone, with its schedule and target."""
        return make_denoiser(
            self.network,
            self.schedule,
            self.target,
            self.data.image_shape,
            self.data.std,
            compute=self.compute,
            seed=seed,
            device=device,
        )

    def module(self, denoiser: Denoiser, seed: int, world: World | None = None) -> DiffusionModule:
        """What Lightning trains, around a fresh denoiser; the data must be on the denoiser's device."""
        module = DiffusionModule(
            denoiser,
            self.objective,
            self.times,
            self.data,
            seed=seed,
            optimizer=self.optimizer,
            batch_size=self.training.batch_size,
            warmup_steps=self.training.warmup_steps,
            ema_decay=self.training.ema_decay,
            loss_scale=self.zero_loss[0] if self.normalize else 1.0,
            world=world,
        )
        if resolve_auto("compile", self.compute.compile, self.data.device):
            for network in (denoiser.network, module.ema.network):
                cast(Any, network).compile()
        return module


def make_denoiser(
    network: MakeNetwork,
    schedule: Schedule,
    target: Target,
    image_shape: tuple[int, int, int],
    data_std: float,
    *,
    compute: Compute,
    seed: int,
    device: torch.device,
) -> Denoiser:
    """A fresh network on `device` with its schedule and target; see `Setup.denoiser`."""
    with seeded(stream_key(seed, 0, "initial weights")):
        made = network(image_shape=image_shape, schedule=schedule, data_std=data_std)
    if resolve_auto("channels_last", compute.channels_last, device):
        made = cast(nn.Module, cast(Any, made).to(memory_format=torch.channels_last))
    bf16 = resolve_precision(compute.precision, device) == "bf16"
    return Denoiser(made.to(device), schedule, target, torch.bfloat16 if bf16 else None)
