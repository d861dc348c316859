"""What became of the runs of a sweep, read from their directories when it ends, however it ends."""

import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffexp import heartbeat
from diffexp.apps.record import run_directory
from diffexp.files import is_locked
from diffexp.runs import RunDirectory

_LATELY = 6 * heartbeat.EVERY
_ORDER = ("done", "running", "diverged", "interrupted", "not started", "died", "unreadable", "failed")


_BAD = ("failed", "died", "unreadable")


class Outcomes:
    """The runs of one command."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunDirectory, int]] = []
        self._lines: list[list[str]] = []

    def expect(self, cfg: DictConfig, chosen: Mapping[str, str]) -> None:
        """A run that is about to be started, or found finished."""
        images = int(cfg.trainer.max_steps) * int(cfg.training.batch_size)
        self._runs.append((run_directory(cfg, chosen), images))
        self._lines.append(list(HydraConfig.get().overrides.task))

    @property
    def expected(self) -> bool:
        """Whether it is known which runs there will be."""
        return bool(self._runs)

    def name(self, number: int) -> str:
        """A job of the sweep by what tells it from the others, "#1 seed=1"."""
        shared = set(self._lines[0]).intersection(*self._lines)
        return " ".join([f"#{number}", *(word for word in self._lines[number] if word not in shared)])

    @property
    def failed(self) -> bool:
        """Whether any run needs somebody's attention."""
        return any(_state(directory, images) in _BAD for directory, images in self._runs)

    def tell(self) -> None:
        """Print a table of a sweep: every run with its state, the failed ones last and with what repeats them."""
        if len(self._runs) < 2:
            return
        states = [(_state(directory, images), directory) for directory, images in self._runs]
        states.sort(key=lambda each: _ORDER.index(each[0]))
        for state, directory in states:
            print(f"{state:<12} {directory.path}")
            if state == "unreadable":
                print(
                    f"{'':<12}   its run.json is none of ours: move it away, and the same command starts the run over"
                )
            elif state in _BAD:
                record = directory.record
                print(f"{'':<12}   {record.get('error') or 'its process was killed'}")
                print(f"{'':<12}   again: {record.get('command')}")
        counts = Counter(state for state, _ in states)
        left = sum(counts[state] for state in ("interrupted", "not started", "died", "failed"))
        advice = "; the same command again takes up what is left" if left else ""
        print(", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) + advice)
        sys.stdout.flush()


def _state(directory: RunDirectory, images: int) -> str:
    record = directory.record
    if not record and directory.record_file.exists():
        return "unreadable"
    state = str(record.get("status", "not started"))
    if state == "running":
        return "running" if is_locked(directory.path) or _elsewhere(directory) else "died"
    if state == "done" and record.get("images_seen", 0) < images:
        return "not started"  # as far as this command is concerned, which would extend it
    return state if state in _ORDER else "not started"


def _elsewhere(directory: RunDirectory) -> bool:
    """Whether another machine, whose locks may not reach this one, was heard of lately."""
    if directory.record.get("host") == platform.node() or not directory.heartbeat_file.exists():
        return False
    return time.time() - directory.heartbeat_file.stat().st_mtime < _LATELY
