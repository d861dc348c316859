"""Who a run is: its directory, its configuration, the command that repeats it, the code it ran."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffexp.runs.config_keys import GROUPS
from diffexp.runs.directory import RunDirectory, config_hash, samples_hash

_VERSIONS = ("diffexp", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb", "diffusers", "numpy")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as nested maps of plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def chosen_files() -> Mapping[str, str]:
    """Which file was taken of each group of conf/."""
    return {key: str(choice) for key, choice in HydraConfig.get().runtime.choices.items()}


def run_directory(cfg: DictConfig, chosen: Mapping[str, str]) -> RunDirectory:
    """Where a configuration's run lives."""
    readable = (chosen["target"], str(cfg.objective.space), chosen["schedule"], chosen["data"])
    return RunDirectory(Path(cfg.root), str(cfg.study), readable, config_hash(plain(cfg)), int(cfg.seed))


def identity(cfg: DictConfig, chosen: Mapping[str, str], directory: RunDirectory) -> dict[str, Any]:
    """The entries of run.json that are known before training."""
    return {
        **{key: chosen[key] for key in GROUPS},
        "space": str(cfg.objective.space),
        "study": str(cfg.study),
        "seed": int(cfg.seed),
        "config_hash": directory.config_hash,
        "samples_hash": samples_hash(plain(cfg)),
        "command": command(),
        "git": git_state(Path(__file__)),
        "versions": versions(),
        "max_images": int(cfg.trainer.max_steps) * int(cfg.training.batch_size),
    }


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}


def command() -> str:
    """The command line that repeats this one run."""
    words = list(HydraConfig.get().overrides.task)
    if any(word.startswith("experiment=") for word in words):
        words.append("hydra.mode=RUN")  # this run alone of the sweep that the file describes
    typed = get_args_parser().parse_known_args(sys.argv[1:])[0]
    for flag, value in (("--config-dir", typed.config_dir), ("--config-name", typed.config_name)):
        if value is not None:
            words.insert(0, f"{flag}={value}")
    return f"diffexp train {shlex.join(words)}"


def git_state(file: Path) -> str | None:
    """Commit of the checkout that `file` is a part of, with "+changes" if it was edited since.

    None for an installed package: the repository around its environment is somebody else's.
    """
    package = file.resolve().parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file.resolve()))
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
