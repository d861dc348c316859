"""`diffexp train`: one run is one idempotent command in one deterministic directory."""

import platform
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffexp.runs import RunDirectory, Status, config_hash


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.apps.hydra_app import run_hydra_app

    return run_hydra_app(train, "train", argv, check)


def check(cfg: DictConfig) -> None:
    """Refuse what cannot work, before any run of a sweep begins.

    Raises:
        ValueError, FileNotFoundError: With one clear message.
    """
    from diffexp.apps import build
    from diffexp.apps.feasibility import advice

    chosen = chosen_files()
    run_directory(cfg, chosen).refuse_another(plain(cfg))
    parts, where = build.problem(cfg, chosen), build.device(cfg)
    for line in advice(cfg, chosen, parts.objective, parts.schedule, parts.times):
        if line not in _advised:
            _advised.add(line)
            print(f"diffexp train: note: {line}", file=sys.stderr)
    build.denoiser(cfg, parts, where)
    build.prepared_metric(cfg, parts, where)


def train(cfg: DictConfig) -> Status:
    """Train what `cfg` says, or finish it, or say that it is done."""
    chosen = chosen_files()
    directory = run_directory(cfg, chosen)
    steps = int(cfg.trainer.max_steps)
    images = steps * int(cfg.training.batch_size)
    before = directory.record
    if before.get("status") == "diverged" or (
        before.get("status") == "done" and before.get("images_seen", 0) >= images
    ):
        print(f"{directory.path} is {before['status']}: nothing to do", flush=True)
        return cast(Status, before["status"])
    import torch

    from diffexp.apps import build
    from diffexp.apps.fit import fit

    parts, where = build.problem(cfg, chosen), build.device(cfg)
    directory.claim(
        {
            **{key: str(value) for key, value in chosen.items() if key in GROUPS},
            "space": str(cfg.objective.space),
            "study": str(cfg.study),
            "seed": int(cfg.seed),
            "config_hash": directory.config_hash,
            "status": "running",
            "error": None,
            "command": command(),
            "git": git_state(),
            "versions": {name: version(name) for name in VERSIONS} | {"python": platform.python_version()},
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else f"cpu ({platform.machine()})",
            "images_seen": before.get("images_seen", 0),
            "max_images": images,
        },
        plain(cfg),
    )
    print(f"{directory.path}", flush=True)
    try:
        status = fit(cfg, parts, where, directory)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        directory.write_record(status="interrupted")
        raise
    except BaseException as error:
        directory.traceback_file.write_text(traceback.format_exc(), encoding="utf-8")
        directory.write_record(status="failed", error=" ".join(f"{type(error).__name__}: {error}".split())[:500])
        raise
    return status


GROUPS = (
    "target",
    "weighting",
    "schedule",
    "times",
    "data",
    "network",
    "optimizer",
    "sampler",
    "metric",
)
VERSIONS = (
    "diffexp",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "wandb",
    "diffusers",
    "numpy",
)


_advised: set[str] = set()  # a sweep says each thing once


def run_directory(cfg: DictConfig, chosen: Mapping[str, str]) -> RunDirectory:
    """Where a configuration's run lives."""
    readable = (chosen["target"], str(cfg.objective.space), chosen["schedule"], chosen["data"])
    return RunDirectory(Path(cfg.root), str(cfg.study), readable, config_hash(plain(cfg)), int(cfg.seed))


def chosen_files() -> Mapping[str, str]:
    """Which file was taken of each group of conf/."""
    return {key: str(choice) for key, choice in HydraConfig.get().runtime.choices.items()}


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as nested maps of plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def command() -> str:
    """The command line that repeats this run."""
    import shlex

    words = list(HydraConfig.get().overrides.task)
    if any(word.startswith("experiment=") for word in words):
        words.append("hydra.mode=RUN")  # this one run of the sweep that the file describes
    return f"diffexp train {shlex.join(words)}"


def git_state() -> str | None:
    """Commit of the code, with "+changes" if it was edited since; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
