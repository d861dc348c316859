"""A table of the runs of a sweep, read from their directories when it ends, however it ends."""

import sys
import time
from collections import Counter
from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffexp.cli.identity import max_images, run_directory
from diffexp.cli.sweep import distinct
from diffexp.runs.directory import RunDirectory
from diffexp.runs.run_state import repeating, state_of
from diffexp.runs.state_names import NEED_ATTENTION, STATES, TO_TRAIN, trouble
from diffexp.runs.study import Run


class SweepSummary:
    """The runs of one command."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunDirectory, int]] = []
        self._lines: list[list[str]] = []

    def add(self, cfg: DictConfig, chosen: Mapping[str, str]) -> None:
        """A run that will be started, or is done already."""
        self._runs.append((run_directory(cfg, chosen), max_images(cfg)))
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
        """Whether any run needs attention."""
        return any(_state(directory, images) in NEED_ATTENTION for directory, images in self._runs)

    def print(self) -> None:
        """Print a table of a sweep: every run with its state, the failed ones last and with what repeats them."""
        if len(self._runs) < 2:
            return
        once = {directory.path: (directory, images) for directory, images in self._runs}  # two jobs may be one run
        states = [(_state(directory, images), directory) for directory, images in once.values()]
        states.sort(key=lambda each: STATES.index(each[0]), reverse=True)
        width = max(len(state) for state in STATES) + 1
        for state, directory in states:
            print(f"{state:<{width}} {directory.path}")
            record = directory.record
            if reason := trouble(state, record.get("error")):
                print(f"{'':<{width}}   {reason}")
                if again := repeating(str(record.get("command") or ""), directory.root):
                    print(f"{'':<{width}}   again: {again}")
        counts = Counter(state for state, _ in states)
        advice = "; the same command again continues with the rest" if any(counts[state] for state in TO_TRAIN) else ""
        print(", ".join(f"{counts[state]} {state}" for state in reversed(STATES) if counts[state]) + advice)
        sys.stdout.flush()


def _state(directory: RunDirectory, images: int) -> str:
    run = Run.at(directory.path)
    state = state_of(run, time.time()) if run else "starting"
    if state == "starting" or (run and state == "done" and run.record.get("images_seen", 0) < images):
        return "not started"  # this command would train it
    return state
