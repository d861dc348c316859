"""Training commands that differ only in how samples are measured: they name one run.

A run is what is trained. Its sampler and metric measure it once at its end; `diffexp evaluate` measures it by others.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffexp.cli.identity import chosen_files, plain, run_directory
from diffexp.runs.config_keys import MEASUREMENT, NOT_MEASURED, below
from diffexp.runs.directory import RunDirectory, differences, measurement, samples_drawn_by
from diffexp.runs.study import Run


def evaluate_instead(directory: RunDirectory, cfg: DictConfig) -> str:
    """ "; to measure ...": the command that measures a finished run as `cfg` does; "" where it was measured so."""
    there = _measured(directory.path)
    if there is None or there == measurement(plain(cfg)):
        return ""
    words = [f"run={directory.path}", *_typed(cfg)]
    return f"; to measure its samples with these settings: diffexp evaluate {shlex.join(words)}"


def note_other_seeds(directory: RunDirectory, cfg: DictConfig) -> None:
    """Note where another seed's samples are drawn with other settings: a report cannot average over the two."""
    here = samples_drawn_by(plain(cfg))
    for other in sorted(directory.path.parent.glob("seed=*")):
        run = Run.at(other) if other != directory.path else None
        if run and run.config and (differs := differences(samples_drawn_by(run.config), here)):
            _note(
                f"{directory.path}: {other.name} draws its samples otherwise ({differs}), so a report shows the two as "
                "rows of their own. To average over seeds, train them with the same sampler and measure others by: "
                f"diffexp evaluate {_every_run_of(directory)} sampler=..."
            )
            return


class OneRunTwice:
    """A check of a sweep's jobs that notes, once, that several of them are one run."""

    def __init__(self) -> None:
        self._seen: dict[Path, Mapping[str, Any]] = {}
        self._noted = False

    def __call__(self, cfg: DictConfig) -> None:
        directory, wanted = run_directory(cfg, chosen_files()), measurement(plain(cfg))
        before = self._seen.setdefault(directory.path, wanted)
        if before == wanted or self._noted:
            return
        self._noted = True
        keys = [key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key)]
        groups = sorted({key.partition(".")[0] for key in keys})
        both = " metric=[A,B] measures both at once." if "metric" in groups else ""
        swept = [f"{group}=..." for group in groups if group != "sampling"] or ["sampling.KEY=..."]
        _note(
            f"jobs that differ only in {' and '.join(groups)} are one run, which is trained once and measured as its "
            f"first job has it.{both} To measure runs in several ways: "
            f"diffexp evaluate {_every_run_of(directory)} {' '.join(swept)}"
        )


def _note(text: str) -> None:
    print(f"diffexp train: note: {text}", file=sys.stderr)


def _every_run_of(directory: RunDirectory) -> str:
    return f"-m {shlex.quote(f'study={directory.root / directory.study}')}"


def _measured(path: Path) -> dict[str, Any] | None:
    run = Run.at(path)
    return measurement(run.config) if run and run.config else None


def _typed(cfg: DictConfig) -> list[str]:
    """The overrides of this job about how samples are measured; the choices where there are none."""
    words: list[str] = list(HydraConfig.get().overrides.task)
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    found = [
        word for word, key in zip(words, keys, strict=True) if below(key, MEASUREMENT) and not below(key, NOT_MEASURED)
    ]
    chosen = chosen_files()
    return found or [f"{group}={chosen[group]}" for group in ("sampler", "metric") if group in cfg]
