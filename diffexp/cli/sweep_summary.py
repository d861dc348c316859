"""A table of the runs of a sweep, read from their directories when it ends, however it ends."""

import sys
import time
from collections import Counter
from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffexp.cli.identity import run_directory
from diffexp.cli.sweep import distinct
from diffexp.runs.directory import RunDirectory
from diffexp.runs.state import state_of
from diffexp.runs.study import Run

_ORDER = ("done", "running", "diverged", "interrupted", "not started", "died", "unreadable", "failed")
_BAD = ("failed", "died", "unreadable")

#: The states of `diffexp.runs.state.STATES` that have another name for the command that trains them.
_WORDS = {"starting": "not started", "stopped": "died"}


class SweepSummary:
    """The runs of one command."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunDirectory, int]] = []
        self._lines: list[list[str]] = []

    def add(self, cfg: DictConfig, chosen: Mapping[str, str]) -> None:
        """A run that will be started, or is done already."""
        images = int(cfg.trainer.max_steps) * int(cfg.training.batch_size)
        self._runs.append((run_directory(cfg, chosen), images))
        self._lines.append(list(HydraConfig.get().overrides.task))

    @property
    def known(self) -> bool:
        """Whether all runs are known; a sweeper that chooses its jobs while it runs adds none."""
        return bool(self._runs)

    def name(self, number: int) -> str:
        """A job of the sweep by the overrides that only it has, "#1 seed=1"."""
        return f"#{number} {distinct(self._lines)[number]}".rstrip()

    @property
    def failed(self) -> bool:
        """Whether any run needs somebody's attention."""
        return any(_state(directory, images) in _BAD for directory, images in self._runs)

    def print(self) -> None:
        """Print a table of a sweep: every run with its state, the failed ones last and with what repeats them."""
        if len(self._runs) < 2:
            return
        once = {directory.path: (directory, images) for directory, images in self._runs}  # two jobs may be one run
        states = [(_state(directory, images), directory) for directory, images in once.values()]
        states.sort(key=lambda each: _ORDER.index(each[0]))
        for state, directory in states:
            print(f"{state:<12} {directory.path}")
            if state == "unreadable":
                print(f"{'':<12}   not a diffexp run.json: move it away, and the same command starts the run over")
            elif state in _BAD:
                record = directory.record
                print(f"{'':<12}   {record.get('error') or 'its process was killed'}")
                print(f"{'':<12}   again: {record.get('command')}")
        counts = Counter(state for state, _ in states)
        left = sum(counts[state] for state in ("interrupted", "not started", "died", "failed"))
        advice = "; the same command again continues with the rest" if left else ""
        print(", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) + advice)
        sys.stdout.flush()


def _state(directory: RunDirectory, images: int) -> str:
    run = Run.at(directory.path)
    state = state_of(run, time.time()) if run else "starting"
    if run and state == "done" and run.record.get("images_seen", 0) < images:
        return "not started"  # this command would extend it
    return _WORDS.get(state, state)
