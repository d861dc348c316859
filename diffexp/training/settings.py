"""The numbers of a run, by section, with the names, keys and defaults that the sections of conf/train.yaml have.

(`sampling` in conf/ also holds what its samplers share: clip, t_start, t_end.)
"""

from dataclasses import dataclass
from typing import Any


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
        bound: Model variance of the variational bound in bits/dim, "beta" or "beta_tilde"; None: no bound.
        t_start: Noise end of the bound's chain.
    """

    every: int = 2000
    count: int = 1024
    batch_size: int = 256
    bound: str | None = "beta"
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
        precision: "auto", "32", or "bf16" for the network's insides.
        channels_last: Memory format of the network: "auto", True or False.
        compile: Whether torch.compile is used: "auto", True or False.
    """

    precision: str = "auto"
    channels_last: Any = "auto"
    compile: Any = "auto"
