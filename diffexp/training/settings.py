"""The numbers of a run, by section; the sections of conf/train.yaml have the same names, keys and defaults."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffexp.likelihood.bound import Variance

Auto: TypeAlias = Literal["auto"] | bool


@dataclass(frozen=True)
class Training:
    """How the network is trained.

    Attributes:
        batch_size: Images per step, those of all processes together.
        warmup_steps: Steps over which the learning rate rises linearly to its value.
        ema_decay: Share of the weights' moving average that survives a step, in the long run.
        log_every: Steps between two lines of metrics.jsonl.
    """

    batch_size: int = 128
    warmup_steps: int = 200
    ema_decay: float = 0.999
    log_every: int = 50


@dataclass(frozen=True)
class Validation:
    """How prediction errors are measured on held-out images.

    Attributes:
        every: Steps.
        count: Held-out (x0, t, eps), the same for every run.
        batch_size: How many the network sees at once.
        bound: Model variance of the variational bound in bits/dim; None: no bound.
        t_start: Noise end of the bound's chain.
    """

    every: int = 2000
    count: int = 1024
    batch_size: int = 256
    bound: Variance | None = "beta"
    t_start: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """When grids of samples are drawn during training.

    Attributes:
        every: Steps between two grids; None: at the end alone.
        grid: Images in a grid, from the same starting noise for every run.
    """

    every: int | None = None
    grid: int = 64


@dataclass(frozen=True)
class Compute:
    """How the network runs; "auto" is on with a GPU and off without.

    Attributes:
        precision: "32", or "bf16" for the network's insides.
        channels_last: Memory format of the network.
        compile: Whether torch.compile is used.
    """

    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: Auto = "auto"
    compile: Auto = "auto"
