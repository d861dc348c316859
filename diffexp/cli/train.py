"""`diffexp train`: one run is one idempotent command in one deterministic directory."""

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from diffexp.cli.errors import AlreadyReported
from diffexp.cli.identity import chosen_files, command, identity, max_images, plain, run_directory
from diffexp.cli.measured_alike import OneRunTwice, evaluate_instead, note_other_seeds
from diffexp.cli.sweep_summary import SweepSummary
from diffexp.errors import UserError
from diffexp.io.files import why_unwritable
from diffexp.runs.directory import RunDirectory
from diffexp.training.distributed import Group, World

if TYPE_CHECKING:
    from diffexp.training.train import Job


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 1 if the run failed, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    from diffexp.cli.hydra_app import run_hydra_app

    try:
        world = World.from_environ()
    except UserError as error:
        print(f"diffexp train: error: {error}", file=sys.stderr)
        return 2
    if world.rank:
        from diffexp.cli import worker

        return worker.main(argv, world)
    global _summary, _group
    summary, group, code = SweepSummary(), Group(world), 1
    _summary, _group = summary, group
    try:
        code = run_hydra_app(
            task, "train", argv, check, OneRunTwice(), prepare, lambda cfg: summary.add(cfg, chosen_files())
        )
    finally:
        summary.print()
        group.end(code)
        _summary, _group = None, None
    return code or int(summary.failed)


#: Of the command that runs in this process. A launcher that starts the task in another process has neither there.
_summary: SweepSummary | None = None
_group: Group | None = None


def task(cfg: DictConfig) -> None:
    """One job, for Hydra: a function of a module, which any launcher can send to another process."""
    known = _summary is not None and _summary.known
    sweep = known and HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        name = _summary.name(HydraConfig.get().job.num) if _summary and sweep else None
        train(cfg, _group or Group(World.from_environ()), name)
    except AlreadyReported:
        if not known:  # a sweeper that chooses its jobs as it goes needs the error
            raise


def finished(cfg: DictConfig) -> str | None:
    """Why there is nothing left to do for this configuration, in one line; else None."""
    from diffexp.training.fitting import finished

    directory = run_directory(cfg, chosen_files())
    line = finished(directory, max_images(cfg))
    return line and f"{line}{evaluate_instead(directory, cfg)}"


def _require_longer(cfg: DictConfig, directory: RunDirectory) -> None:
    """Require that the run does not end before its checkpoint.

    Raises:
        UserError: It has trained more steps than `trainer.max_steps`.
    """
    from diffexp.runs.run_state import images_seen
    from diffexp.runs.study import Run
    from diffexp.training.checkpoints import read_checkpoint
    from diffexp.training.train import too_short

    run, steps = Run.at(directory.path), int(cfg.trainer.max_steps)
    if run is None or (images_seen(run) or 0) <= max_images(cfg) or not directory.checkpoint.exists():
        return
    trained = int(read_checkpoint(directory.checkpoint, plain(cfg))["global_step"])
    if trained > steps:
        raise UserError(too_short(directory, steps, trained))


def check(cfg: DictConfig) -> None:
    """Check one job before any run of a sweep begins.

    Raises:
        UserError: It cannot work.
    """
    from diffexp.cli import build
    from diffexp.cli.feasibility import advice
    from diffexp.cli.schema import validate_processes, validate_settings, validate_unread
    from diffexp.training.loggers import require_available

    chosen = chosen_files()
    validate_settings(cfg)
    validate_unread(cfg, chosen)
    validate_processes(cfg, World.from_environ().size, HydraConfig.get().mode)
    require_available(cfg.logger)
    directory = run_directory(cfg, chosen)
    directory.require_same_config(plain(cfg))
    if finished(cfg):
        return
    _require_longer(cfg, directory)
    note_other_seeds(directory, cfg)
    if trouble := why_unwritable(directory.path):
        raise UserError(f"root={cfg.root}: {trouble}. Set root= to a folder that can be written.")
    parts, device = build.setup(cfg, chosen), build.device(cfg)
    parts.metric.validate(parts.data)
    for line in advice(cfg, chosen, parts.objective, parts.schedule, parts.times):
        if line not in _advised:
            _advised.add(line)
            print(f"diffexp train: note: {line}", file=sys.stderr)
    build.try_network(cfg, parts, device)


def prepare(cfg: DictConfig) -> None:
    """Make what the runs of a sweep share, once every job has been checked: features and reference statistics.

    Raises:
        UserError: The metric's features cannot be computed for this data.
    """
    from diffexp.cli import build

    elsewhere = str(HydraConfig.get().launcher._target_).endswith(".SlurmLauncher")  # ours, and that of Hydra's plugin
    if not elsewhere and not finished(cfg):  # a node prepares for itself; a login node may be slow and have no GPU
        build.prepared_metric(cfg, build.setup(cfg, chosen_files()), build.device(cfg))


_advised: set[str] = set()  # a sweep prints each note once


def train(cfg: DictConfig, group: Group, name: str | None = None) -> None:
    """Train the run of this configuration, or resume it, or print that there is nothing to do.

    Args:
        cfg: The configuration.
        group: Of the run's processes.
        name: Printed before the training begins.

    Raises:
        KeyboardInterrupt, SystemExit: A signal ended it; it is recorded as "interrupted".
        AlreadyReported: It failed; that is recorded, traceback.txt holds the traceback, and a message was printed.
    """
    from diffexp.cli.schema import validate_processes
    from diffexp.training.fitting import train_alone

    validate_processes(cfg, group.world.size, HydraConfig.get().mode)  # not every sweeper has its jobs checked
    directory, reported = run_directory(cfg, chosen_files()), list[Exception]()

    def on_failure(directory: RunDirectory, error: Exception) -> None:
        reported.append(error)
        _report_failure(directory, error)

    def announce(line: str | None) -> None:
        if line or name:
            print(f"{line}{evaluate_instead(directory, cfg)}" if line else name, flush=True)

    try:
        if not train_alone(lambda: _job(cfg, directory), directory, max_images(cfg), group, announce, on_failure):
            print(f"{directory.path} is already being trained by another process: skipped", flush=True)
    except Exception as error:
        if not reported and isinstance(error, OSError):
            on_failure(directory, error)
        if not reported:
            raise
        if cfg.fail_fast:
            raise SystemExit(1) from error
        raise AlreadyReported(str(error)) from error


def _job(cfg: DictConfig, directory: RunDirectory) -> "Job":
    from diffexp.cli import build
    from diffexp.training import loggers
    from diffexp.training.describe import describe
    from diffexp.training.train import Job

    _require_longer(cfg, directory)
    chosen, device = chosen_files(), build.device(cfg)
    parts = build.setup(cfg, chosen)
    space = {"space_target": describe(parts.space, "objective.space") if parts.space else None}
    return Job(
        setup=parts,
        config=plain(cfg),
        directory=directory,
        seed=int(cfg.seed),
        max_steps=int(cfg.trainer.max_steps),
        checkpoint_every=int(cfg.checkpoint.every_n_steps),
        record={**identity(cfg, chosen, directory), **space},
        device=device,
        denoiser=build.take_denoiser(cfg, device),
        metric=build.prepared_metric(cfg, parts, device),
        open_loggers=functools.partial(loggers.opened, cfg.logger, config=plain(cfg)),
        log_image=loggers.log_image,
    )


def _report_failure(directory: RunDirectory, error: Exception) -> None:
    """Record that a run failed and print why, at once, for a sweep goes on."""
    from diffexp.training.distributed import LostProcessError
    from diffexp.training.failures import explained_failure, failure_text, failure_traceback, record_failure

    record_failure(directory, error)
    lines = [f"{directory.path} failed: {failure_text(error, directory.path)}", f"    again: {command()}"]
    if isinstance(error, LostProcessError) or not explained_failure(error, directory.path):
        if HydraConfig.get().mode is RunMode.MULTIRUN:  # the next run is about to begin
            lines.insert(1, f"    traceback: {directory.traceback_file}")
        else:
            lines.insert(0, failure_traceback(error).rstrip("\n"))
    print("\n".join(lines), file=sys.stderr, flush=True)
