"""`fit`: train a run from plain objects, with no configuration file."""

import functools
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from diffexp.data.base import Data, Source
from diffexp.errors import UserError
from diffexp.io.files import try_locked
from diffexp.metrics.samples import Metric, NoMetric
from diffexp.runs.directory import RunDirectory, config_hash
from diffexp.runs.liveness import beating, is_beating
from diffexp.runs.provenance import git_state, versions
from diffexp.runs.study import Run
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.training.callbacks import no_images
from diffexp.training.describe import describe
from diffexp.training.devices import find_device
from diffexp.training.distributed import Group, World
from diffexp.training.failures import record_failure
from diffexp.training.module import MakeOptimizer
from diffexp.training.settings import Compute, Sampling, Training, Validation
from diffexp.training.setup import MakeNetwork, Setup
from diffexp.training.signals import interruptible
from diffexp.training.train import Job, LogImage, OpenLoggers, no_loggers, train
from diffexp.weighting import Weighting

_NAMES = ("target", "weighting", "schedule", "times", "data", "network", "optimizer", "sampler", "metric")


def fit(
    *,
    target: Target,
    data: Source | Data,
    network: MakeNetwork,
    schedule: Schedule | None = None,
    space: Target | None = None,
    weighting: Weighting | None = None,
    times: Times | None = None,
    sampler: Sampler | None = None,
    metric: Metric | None = None,
    optimizer: MakeOptimizer | None = None,
    normalize: bool = True,
    training: Training | None = None,
    validation: Validation | None = None,
    sampling: Sampling | None = None,
    compute: Compute | None = None,
    trainer: Mapping[str, Any] | None = None,
    study: str = "scratch",
    seed: int = 0,
    max_steps: int = 10_000,
    root: str | Path = "runs",
    accelerator: str = "auto",
    checkpoint_every: int = 2000,
    open_loggers: OpenLoggers = no_loggers,
    log_image: LogImage = no_images,
) -> Run:
    """Train a run, or go on with it, or return it if it is done.

    Runs of one study that differ in nothing but the target see the same images, times and noise for the same seed, so
    they can be compared seed by seed: `diffexp report STUDY`. The same call again goes on where it was interrupted;
    a larger `max_steps` extends the run.

    Args:
        target: What the network predicts.
        data: A source such as `Digits()`, or data that is at hand (the run can then not be loaded in another process
            without it).
        network: A class or a functools.partial of one: `network(image_shape=, schedule=, data_std=)` makes the network,
            whose `forward(x_t, t)` gives a tensor like x_t for t (batch, 1, 1, 1) in [0, 1].
        schedule: DDPM's chain unless given.
        space: The target in whose space the loss is computed; `target`'s own unless given.
        weighting: Of the noise levels in that space; uniform unless given.
        times: Density of the training times; uniform unless given.
        sampler: DDIM with 50 steps unless given.
        metric: Of the samples; none unless given.
        optimizer: functools.partial of a class; AdamW unless given.
        normalize: See `Setup`.
        training: Batch size, warm-up, averaging, logging.
        validation: When, and on how many held-out images.
        sampling: When grids of samples are drawn.
        compute: Precision, memory format, compilation.
        trainer: Further arguments of Lightning's Trainer, in place of {"gradient_clip_val": 1.0}.
        study: A name; `<root>/<study>/<choices>-<hash>/seed=<N>/` is where the run is kept.
        seed: Of the initial weights and all draws.
        max_steps: Training steps in all.
        root: The folder of all studies.
        accelerator: "auto", "cpu" or "cuda".
        checkpoint_every: Steps between two checkpoints.
        open_loggers: Loggers of Lightning beside the run's own files.
        log_image: How a picture gets into such a logger.

    Returns:
        The run as it is on the disk: `run.status`, `run.final["val/belief_eps"]`, `run.metrics()`.

    Raises:
        UserError: Something given cannot work, or another process is training this run.
        Exception: The run failed; its record and traceback.txt say so. A diverged run is returned, with that status.
        KeyboardInterrupt, SystemExit: A signal ended it; the same call goes on.
    """
    given = {
        "schedule": schedule,
        "weighting": weighting,
        "times": times,
        "sampler": sampler,
        "metric": metric,
        "optimizer": optimizer,
        "training": training,
        "validation": validation,
        "sampling": sampling,
        "compute": compute,
        "trainer": trainer,
    }
    setup = Setup(
        target=target,
        data=data.load() if isinstance(data, Source) else data,
        network=network,
        space=space,
        normalize=normalize,
        **cast(dict[str, Any], {key: part for key, part in given.items() if part is not None}),
    )
    config = setup_config(setup, data)
    names = {key: _name(getattr(setup, key)) for key in _NAMES} | {"data": setup.data.name}
    space_name = _name(setup.space) if setup.space else "native"
    readable = (names["target"], space_name, names["schedule"], names["data"])
    directory = RunDirectory(Path(root), study, readable, config_hash(config), seed)
    record: dict[str, Any] = {**names, "space": space_name, "study": study, "seed": seed, "command": None}
    record |= {"git": git_state(), "versions": versions()}
    record["space_target"] = describe(setup.space, "space") if setup.space else None
    record |= {"config_hash": directory.config_hash, "max_images": max_steps * setup.training.batch_size}
    job = Job(
        setup=setup,
        config=config,
        directory=directory,
        seed=seed,
        max_steps=max_steps,
        checkpoint_every=checkpoint_every,
        record=record,
        device=find_device(accelerator),
        open_loggers=open_loggers,
        log_image=log_image,
    )
    if not train_alone(lambda: job, directory, max_steps * setup.training.batch_size, Group(World())):
        raise UserError(f"{directory.path} is being trained by another process.")
    run = Run.at(directory.path)
    assert run is not None
    return run


def train_alone(
    make_job: Callable[[], Job],
    directory: RunDirectory,
    images: int,
    group: Group,
    announce: Callable[[str | None], object] = lambda line: None,
    on_failure: Callable[[RunDirectory, Exception], object] = record_failure,
) -> bool:
    """Train the run in `directory` unless it is finished or another process trains it.

    Args:
        make_job: Called once the run's lock is held and there is something to do.
        directory: The run's.
        images: Images to be seen in all.
        group: Of the run's processes.
        announce: Called with the reason why there is nothing to do, in one line, or with None before training.
        on_failure: See `train`.

    Returns:
        False if another process trains it.
    """
    with try_locked(directory.path) as alone:
        if not alone or _trained_elsewhere(directory):
            return False
        if line := finished(directory, images):
            announce(line)
            return True
        announce(None)
        with interruptible() as interruption, beating(directory.heartbeat_file):
            train(make_job(), interruption, group, on_failure)
    return True


def finished(directory: RunDirectory, images: int) -> str | None:
    """Why there is nothing left to do for this number of images, in one line; else None."""
    record = directory.record
    if record.get("status") == "diverged":
        return f"{directory.path} has diverged: nothing to do (remove that folder to start over)"
    if record.get("status") != "done" or (seen := record.get("images_seen", 0)) < images:
        return None
    longer = f" (it has seen {seen:,} images, more than these {images:,})" if seen > images else ""
    return f"{directory.path} is done: nothing to do{longer}"


def _trained_elsewhere(directory: RunDirectory) -> bool:
    """Whether another machine trains this run although the lock was free: not every network file system locks."""
    record = directory.record
    if record.get("status") != "running" or record.get("host") in (None, platform.node()):
        return False
    return is_beating(directory.heartbeat_file)


def setup_config(setup: Setup, data: Source | Data) -> dict[str, Any]:
    """A setup as plain values, with the sections and keys of conf/train.yaml.

    Raises:
        UserError: A part cannot be written down; see `describe`.
    """
    sections = {key: asdict(getattr(setup, key)) for key in ("training", "validation", "sampling", "compute")}
    groups = ("schedule", "target", "weighting", "times", "network", "sampler", "metric")
    space = describe(setup.space, "space") if setup.space else None
    return {
        "objective": {"space": _name(setup.space) if setup.space else "native", "normalize": setup.normalize},
        **sections,
        "trainer": dict(setup.trainer),
        **{key: describe(getattr(setup, key), key) for key in groups},
        "optimizer": describe(setup.optimizer, "optimizer") | {"_partial_": True},
        "data": describe(data, "data") if isinstance(data, Source) else _at_hand(data),
        **({"space": space} if space else {}),
    }


def _at_hand(data: Data) -> Mapping[str, Any]:
    return {"name": data.name, "fingerprint": data.fingerprint()}


def _name(part: object) -> str:
    """A class's name as conf/ writes it: StepNoise is step_noise."""
    found: Any = cast("functools.partial[Any]", part).func if isinstance(part, functools.partial) else part
    if isinstance(part, NoMetric):
        return "none"
    name = found.__name__ if isinstance(found, type) else type(found).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
