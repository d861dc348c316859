"""`diffexp train`: one run is one idempotent command in one deterministic directory."""

import contextlib
import errno
import gc
import os
import platform
import sys
import traceback
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from diffexp.cli.errors import ToldError, task_mistake
from diffexp.cli.identity import chosen_files, command, identity, plain, run_directory
from diffexp.cli.ranks import Leader, LostProcessError, place
from diffexp.cli.sweep_summary import Outcomes
from diffexp.io.files import try_locked, why_unwritable
from diffexp.io.redact import without_secrets
from diffexp.runs.directory import RunDirectory
from diffexp.runs.liveness import beating, is_beating
from diffexp.training.signals import Interrupted, Interruption, interruptible


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 1 if the run failed, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    from diffexp.cli.hydra_app import run_hydra_app

    try:
        here = place()
    except ValueError as error:
        print(f"diffexp train: error: {error}", file=sys.stderr)
        return 2
    if here.rank:
        from diffexp.cli import worker as assist

        return assist.main(argv, here)
    outcomes, leader, code = Outcomes(), Leader(here), 1

    def task(cfg: DictConfig) -> None:
        sweep = outcomes.expected and HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            train(cfg, leader, outcomes.name(HydraConfig.get().job.num) if sweep else None)
        except ToldError:
            if not outcomes.expected:  # a sweeper that finds its jobs as it goes has to hear of it
                raise

    try:
        code = run_hydra_app(task, "train", argv, check, prepare, lambda cfg: outcomes.expect(cfg, chosen_files()))
    finally:
        outcomes.tell()
        leader.end(code)
    return code or int(outcomes.failed)


def finished(cfg: DictConfig) -> str | None:
    """A line that says so if there is nothing left to do for this configuration, else None."""
    directory = run_directory(cfg, chosen_files())
    record = directory.record
    images = int(cfg.trainer.max_steps) * int(cfg.training.batch_size)
    if record.get("status") == "diverged":
        return f"{directory.path} has diverged: nothing to do (it starts over once that folder is removed)"
    if record.get("status") != "done" or (seen := record.get("images_seen", 0)) < images:
        return None
    longer = f" (it has seen {seen:,} images, more than the {images:,} that were asked for)" if seen > images else ""
    return f"{directory.path} is done: nothing to do{longer}"


def refuse_shorter(cfg: DictConfig, directory: RunDirectory) -> None:
    """Refuse to end a run earlier than its checkpoint: it would be called done with the weights of another length.

    Raises:
        ValueError: It has trained more steps than `trainer.max_steps`.
    """
    from diffexp.training.checkpoints import read_checkpoint

    steps = int(cfg.trainer.max_steps)
    if directory.record.get("images_seen", 0) <= steps * int(cfg.training.batch_size):
        return
    if directory.checkpoint.exists():
        trained = int(read_checkpoint(directory.checkpoint, plain(cfg))["global_step"])
        if trained > steps:
            raise ValueError(
                f"trainer.max_steps={steps}: {directory.path} has trained {trained:,} steps already, and no run goes "
                f"back. Take {trained} or more, or another study=."
            )


def check(cfg: DictConfig) -> None:
    """Refuse what cannot work, before any run of a sweep begins.

    Raises:
        ValueError, FileNotFoundError, ImportError: With one clear message.
    """
    from diffexp.cli import build
    from diffexp.cli.feasibility import advice
    from diffexp.cli.loggers import refuse_unusable
    from diffexp.cli.schema import refuse_processes, refuse_settings

    chosen = chosen_files()
    refuse_settings(cfg)
    refuse_processes(cfg, place().world_size, HydraConfig.get().mode)
    refuse_unusable(cfg.logger)
    directory = run_directory(cfg, chosen)
    directory.refuse_another(plain(cfg))
    if finished(cfg):
        return
    refuse_shorter(cfg, directory)
    if trouble := why_unwritable(directory.path):
        raise ValueError(f"root={cfg.root}: {trouble}. Set root= to a folder that can be written.")
    parts, where = build.problem(cfg, chosen), build.device(cfg)
    parts.metric.refuse(parts.data)
    for line in advice(cfg, chosen, parts.objective, parts.schedule, parts.times):
        if line not in _advised:
            _advised.add(line)
            print(f"diffexp train: note: {line}", file=sys.stderr)
    build.refuse_unbuildable(cfg, parts, where)


def prepare(cfg: DictConfig) -> None:
    """Make what the runs of a sweep share, once every job has been checked: features and reference statistics.

    Raises:
        ValueError, FileNotFoundError, ImportError: The metric cannot be had for this data.
    """
    from diffexp.cli import build

    elsewhere = str(HydraConfig.get().launcher._target_).endswith(".SlurmLauncher")  # ours, and that of Hydra's plugin
    if not elsewhere and not finished(cfg):  # a node prepares for itself; a login node may be slow and have no GPU
        build.prepared_metric(cfg, build.problem(cfg, chosen_files()), build.device(cfg))


_advised: set[str] = set()  # a sweep says each thing once


def train(cfg: DictConfig, leader: Leader, name: str | None = None) -> None:
    """Train what `cfg` says, or finish it, or say that there is nothing to do.

    Args:
        cfg: The configuration.
        leader: Of the run's processes.
        name: Said before the training begins.

    Raises:
        KeyboardInterrupt, SystemExit: It was told to stop; the record says "interrupted".
        ToldError: It failed; the record says so, traceback.txt why, and so has been told.
    """
    from diffexp.cli.schema import refuse_processes

    refuse_processes(cfg, leader.place.world_size, HydraConfig.get().mode)  # not every sweeper has its jobs checked
    directory = run_directory(cfg, chosen_files())
    try:
        with try_locked(directory.path) as alone:
            if not alone or _trained_elsewhere(directory):
                print(f"{directory.path} is being trained by another process: left to it", flush=True)
            elif line := finished(cfg):
                print(line, flush=True)
            else:
                refuse_shorter(cfg, directory)
                if name:
                    print(name, flush=True)
                with interruptible() as interruption, beating(directory.heartbeat_file):
                    _train(cfg, directory, interruption, leader)
    except OSError as error:
        raise _told(directory, error) from error


def _trained_elsewhere(directory: RunDirectory) -> bool:
    """Whether another machine trains this run although the lock could be had: not every network file system locks."""
    record = directory.record
    if record.get("status") != "running" or record.get("host") in (None, platform.node()):
        return False
    return is_beating(directory.heartbeat_file)


def _train(cfg: DictConfig, directory: RunDirectory, interruption: Interruption, leader: Leader) -> None:
    import torch

    from diffexp.cli import build
    from diffexp.cli.fit import fit

    parts, where = build.problem(cfg, chosen_files()), build.device(cfg)
    _refuse_another_device(directory, where, build.precision(cfg, where))
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    record = identity(cfg, chosen_files(), directory)
    record |= {"status": "running", "error": None, "device": name, "precision": build.precision(cfg, where)}
    record |= {"host": platform.node(), "pid": os.getpid(), "processes": leader.place.world_size}
    leader.when_stuck = lambda error: _told(directory, error)
    try:
        directory.claim({"images_seen": 0, **directory.record, **record}, plain(cfg))
        directory.traceback_file.unlink(missing_ok=True)
        fit(cfg, parts, where, directory, interruption, leader)
    except Interrupted as interrupted:
        if lost := leader.lost():
            raise _told(directory, lost) from lost
        with contextlib.suppress(OSError):
            directory.write_record(status="interrupted")
        kept = "its last checkpoint" if interrupted.at_once else "exactly there"
        print(f"{directory.path} was interrupted ({interrupted}); its command goes on from {kept}", flush=True)
        raise
    except Exception as error:
        told = _told(directory, leader.lost(patience=2.0) or error)
        traceback.clear_frames(error.__traceback__)  # Hydra keeps the error, and it would keep the network
        if cfg.fail_fast:
            raise SystemExit(1) from error
        raise told from error
    finally:
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


def _told(directory: RunDirectory, error: Exception) -> Exception:
    """Record and tell that a run failed, at once, for a sweep goes on; what to raise then."""
    lost = error if isinstance(error, LostProcessError) else None
    mistake = str(lost) if lost else task_mistake(error) or _disk_trouble(directory, error)
    trace = without_secrets(lost.traceback if lost else "".join(traceback.format_exception(error)))
    said = without_secrets(" ".join((mistake or f"{type(error).__name__}: {error}").split())[:500])
    with contextlib.suppress(OSError):  # the disk may be what failed
        directory.traceback_file.write_text(trace, encoding="utf-8")
        directory.write_record(status="failed", error=said)
    lines = [f"{directory.path} failed: {said}", f"    again: {command()}"]
    if lost or not mistake:
        if HydraConfig.get().mode is RunMode.MULTIRUN:  # the next run is about to begin
            lines.insert(1, f"    traceback: {directory.traceback_file}")
        else:
            lines.insert(0, trace.rstrip("\n"))
    print("\n".join(lines), file=sys.stderr, flush=True)
    return ToldError(said)


def _disk_trouble(directory: RunDirectory, error: Exception) -> str | None:
    """What to do where the disk takes no more; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    return (
        f"cannot write {error.filename or f'into {directory.path}'} ({error.strerror}). Nothing that was finished is "
        "lost: when it can be written again, the command goes on from the last checkpoint."
    )


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def _refuse_another_device(directory: RunDirectory, where: object, precision: str) -> None:
    """A run goes on where it began: other devices draw other numbers, other precisions round otherwise."""
    record, kind = directory.record, str(where).partition(":")[0]
    if not record.get("images_seen"):
        return
    began = "cpu" if record.get("device") == "cpu" else "cuda"
    if (began, record.get("precision")) != (kind, precision):
        raise ValueError(
            f"{directory.path} was begun on {began} in precision {record.get('precision')} and cannot go on on {kind} "
            f"in {precision}: it would see other noise. Set trainer.accelerator={began}, or take another study=."
        )
