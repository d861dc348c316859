"""`diffexp train`: one run is one idempotent command in one deterministic directory."""

import gc
import sys
import traceback
from collections.abc import Sequence

from omegaconf import DictConfig

from diffexp.apps.main import TERMINATED
from diffexp.apps.record import chosen_files, identity, plain, run_directory
from diffexp.files import try_locked
from diffexp.plain_text import without_secrets
from diffexp.runs import RunDirectory


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 1 if the run failed, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    from diffexp.apps.hydra_app import run_hydra_app

    return run_hydra_app(train, "train", argv, check, prepare)


def finished(cfg: DictConfig) -> str | None:
    """A line that says so if there is nothing left to do for this configuration, else None."""
    directory = run_directory(cfg, chosen_files())
    record = directory.record
    images = int(cfg.trainer.max_steps) * int(cfg.training.batch_size)
    if record.get("status") == "diverged" or (
        record.get("status") == "done" and record.get("images_seen", 0) >= images
    ):
        return f"{directory.path} is {record['status']}: nothing to do"
    return None


def check(cfg: DictConfig) -> None:
    """Refuse what cannot work, before any run of a sweep begins.

    Raises:
        ValueError, FileNotFoundError, ImportError: With one clear message.
    """
    from diffexp.apps import build
    from diffexp.apps.feasibility import advice
    from diffexp.apps.loggers import refuse_unusable
    from diffexp.apps.settings import refuse_settings

    chosen = chosen_files()
    refuse_settings(cfg)
    refuse_unusable(cfg.logger)
    run_directory(cfg, chosen).refuse_another(plain(cfg))
    if finished(cfg):
        return
    parts, where = build.problem(cfg, chosen), build.device(cfg)
    for line in advice(cfg, chosen, parts.objective, parts.schedule, parts.times):
        if line not in _advised:
            _advised.add(line)
            print(f"diffexp train: note: {line}", file=sys.stderr)
    build.refuse_optimizer(cfg, build.denoiser(cfg, parts, where))
    build.compiles(cfg, where)


def prepare(cfg: DictConfig) -> None:
    """Make what the runs of a sweep share, once every job has been checked: features and reference statistics.

    Raises:
        ValueError, FileNotFoundError, ImportError: The metric cannot be had for this data.
    """
    from diffexp.apps import build

    if not finished(cfg):
        build.prepared_metric(cfg, build.problem(cfg, chosen_files()), build.device(cfg))


_advised: set[str] = set()  # a sweep says each thing once


def train(cfg: DictConfig) -> None:
    """Train what `cfg` says, or finish it, or say that there is nothing to do.

    Raises:
        KeyboardInterrupt, SystemExit: It was told to stop; the record says "interrupted".
        Exception: It failed; the record says so, and traceback.txt why.
    """
    directory = run_directory(cfg, chosen_files())
    with try_locked(directory.path) as alone:
        if not alone:
            print(f"{directory.path} is being trained by another process: left to it", flush=True)
        elif line := finished(cfg):
            print(line, flush=True)
        else:
            _train(cfg, directory)


def _train(cfg: DictConfig, directory: RunDirectory) -> None:
    import torch

    from diffexp.apps import build
    from diffexp.apps.fit import fit

    parts, where = build.problem(cfg, chosen_files()), build.device(cfg)
    _refuse_another_device(directory, where, build.precision(cfg, where))
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    record = identity(cfg, chosen_files(), directory)
    record |= {"status": "running", "error": None, "device": name, "precision": build.precision(cfg, where)}
    directory.claim({"images_seen": 0, **directory.record, **record}, plain(cfg))
    directory.traceback_file.unlink(missing_ok=True)
    try:
        fit(cfg, parts, where, directory)
    except (KeyboardInterrupt, SystemExit) as stop:
        directory.write_record(status="interrupted")
        terminated = isinstance(stop, SystemExit) and stop.code == TERMINATED
        print(f"{directory.path} was interrupted; its command goes on from the last checkpoint", flush=True)
        raise (SystemExit(TERMINATED) if terminated else KeyboardInterrupt) from None
    except Exception as error:
        directory.traceback_file.write_text(without_secrets(traceback.format_exc()), encoding="utf-8")
        directory.write_record(status="failed", error=" ".join(f"{type(error).__name__}: {error}".split())[:500])
        traceback.clear_frames(error.__traceback__)  # Hydra keeps the error, and it would keep the network
        if cfg.fail_fast:
            raise SystemExit(f"{directory.path} failed, and fail_fast=true: {error}") from error
        raise
    finally:
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


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
