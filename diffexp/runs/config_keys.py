"""What each key of a run's configuration is for; a key stands for itself and for all below it. No torch here.

Every list of keys stands here once, so that a new group or section is entered in one file.
"""

from collections.abc import Iterable

#: A run's choices, in the order in which a report names them; run.json records them.
CHOICES = ("target", "space", "weighting", "times", "schedule", "data", "network", "sampler", "metric", "optimizer")

#: Where a choice's own settings are, if not under its own name.
PLACE = {"space": "objective.space"}

#: The groups of conf/ from which a run takes one choice each.
GROUPS = tuple(choice for choice in CHOICES if choice not in PLACE)

#: Choices that settings elsewhere are adapted to.
FOLLOWED = ("schedule", "data", "sampler", "metric", "network")

#: What decides whether a network, its optimiser and its trainer can be made and used.
NETWORK_FITS = ("network", "optimizer", "schedule", "data", "compute", "trainer")

#: What decides how much work a step is. The target and the loss do not: the network costs more than all else.
STEP_COST = ("network", "data", "compute", "optimizer._target_", "training.batch_size", "trainer.max_steps")

#: How the samples of a trained network are drawn and measured. None of it enters the training, so none of it is a part
#: of what a run is: `diffexp evaluate` measures one run with many samplers and metrics. `validation` is identity: it
#: decides the held-out draws of every `val/*` and which weights are the best.
MEASUREMENT = ("sampler", "metric", "sampling")

#: Of `MEASUREMENT`, what moves no number.
NOT_MEASURED = ("metric.cache", "metric.batch", "sampling.every", "sampling.grid")

#: Where a run is kept and watched, and on which device it runs; `trainer.max_steps`, which a later start may raise to
#: extend the run; the seed, which has a folder of its own. None of it identifies a run. `compute.precision` does,
#: since bfloat16 moves the numbers, and so does `data.path`: two files are two data sets.
NOT_IDENTITY = (
    "root",
    "study",
    "seed",
    "logger",
    "checkpoint",
    "fail_fast",
    "cache",
    "hydra",
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "compute.channels_last",
    "compute.compile",
    *MEASUREMENT,
)


def below(key: str, settings: Iterable[str]) -> bool:
    """Whether a dotted key is one of the settings or lies below one."""
    return any(key == setting or key.startswith(f"{setting}.") for setting in settings)
