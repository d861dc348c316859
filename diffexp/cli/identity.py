"""What identifies a run: its directory, its configuration, the command that repeats it, the code it ran."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffexp.runs.config_keys import GROUPS
from diffexp.runs.directory import RunDirectory, config_hash, samples_hash
from diffexp.runs.provenance import git_state, versions


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
        "git": git_state(),
        "versions": versions(),
        "max_images": max_images(cfg),
    }


def max_images(cfg: DictConfig) -> int:
    """How many images the run sees in all."""
    return int(cfg.trainer.max_steps) * int(cfg.training.batch_size)


def command() -> str:
    """The command line that repeats this one run."""
    words = list(HydraConfig.get().overrides.task)
    if any(word.startswith("experiment=") for word in words):
        words.append("hydra.mode=RUN")  # this run alone of the sweep that the file describes
    flags = get_args_parser().parse_known_args(sys.argv[1:])[0]
    for flag, value in (("--config-dir", flags.config_dir), ("--config-name", flags.config_name)):
        if value is not None:
            words.insert(0, f"{flag}={value}")
    return f"diffexp train {shlex.join(words)}"
