"""What finished runs say of the time and the disk that another run of the same work will take."""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

from diffexp.io.jsonio import finite
from diffexp.runs.directory import flat
from diffexp.runs.study import Run, read_study

#: What decides how much work an image is, and what there is to do besides. The target, the loss and the optimiser's
#: numbers do not: an evaluation of the network costs more than all else of a step.
_SECTIONS = ("network", "data", "validation", "sampling", "sampler", "metric", "compute")
_KEYS = ("training.batch_size", "training.log_every", "optimizer._target_")

#: So many finished runs say enough.
_MOST = 8


@dataclass(frozen=True)
class Precedent:
    """Means over finished runs of the same work on the same kind of device.

    Attributes:
        runs: How many.
        seconds_per_image: Of training, validation and their pictures included (median).
        seconds_after: From the last step to the end: the last samples and their metrics.
        checkpoints: Bytes.
        samples: Bytes of pictures.
        others_per_image: Bytes of metrics and records for each image seen.
    """

    runs: int
    seconds_per_image: float
    seconds_after: float
    checkpoints: float
    samples: float
    others_per_image: float


def work(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what a run costs for each image, flat."""
    return {
        key: value
        for key, value in flat(config)
        if (key in _KEYS or key.partition(".")[0] in _SECTIONS) and key != "metric.cache"
    }


class Precedents:
    """The finished runs of all studies under `root`, read as they are asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._done: list[Run] | None = None

    def of(self, wanted: Mapping[str, Any], device: str, precision: str) -> Precedent | None:
        """Those of one kind of work.

        Args:
            wanted: See `work`.
            device: The name that run.json gives it.
            precision: As in run.json.
        """
        found: list[Run] = []
        asked = _text(wanted)
        for run in self._finished():
            there = (run.text("device"), run.text("precision"))
            if there == (device, precision) and _here(run) and _text(work(run.config)) == asked:
                found.append(run)
            if len(found) == _MOST:
                break
        timed = [(run, pace) for run in found if (pace := _seconds_per_image(run)) is not None]
        if not timed:
            return None
        sizes = [_sizes(run) for run, _ in timed]
        seen = [run.number("images_seen") or 1.0 for run, _ in timed]
        after = [left for run, _ in timed if (left := _seconds_after(run)) is not None]
        return Precedent(
            runs=len(timed),
            seconds_per_image=median(pace for _, pace in timed),
            seconds_after=min(after, default=0.0),  # what else passed between two starts of a run is no work
            checkpoints=mean(size["checkpoints"] for size in sizes),
            samples=mean(size["samples"] for size in sizes),
            others_per_image=mean(size["others"] / count for size, count in zip(sizes, seen, strict=True)),
        )

    def _finished(self) -> list[Run]:
        if self._done is None:
            studies = sorted(self._root.iterdir()) if self._root.is_dir() else []
            self._done = [run for study in studies for run in read_study(study) if run.status == "done"]
        return self._done


def _here(run: Run) -> bool:
    """One processor is not another, though both are called cpu."""
    return run.text("device") != "cpu" or run.text("host") in ("", platform.node())


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _clocks(run: Run) -> list[tuple[float, float]]:
    """(images seen, seconds since the start) of every line that tells both."""
    return [
        (seen, elapsed)
        for line in run.metrics("time/elapsed")
        if (seen := finite(line["images_seen"])) is not None
        and (elapsed := finite(line.get("time/elapsed"))) is not None
    ]


def _seconds_per_image(run: Run) -> float | None:
    """Over all starts of the run: the clock begins anew at each."""
    seconds, before, seen = 0.0, 0.0, 0.0
    for seen, clock in _clocks(run):  # noqa: B007
        seconds += clock if clock < before else clock - before
        before = clock
    return seconds / seen if seen > 0 and seconds > 0 else None


def _seconds_after(run: Run) -> float | None:
    clocks = _clocks(run)
    try:
        whole = datetime.fromisoformat(run.text("updated")) - datetime.fromisoformat(run.text("created"))
    except (ValueError, TypeError):
        return None
    return max(0.0, whole.total_seconds() - clocks[-1][1]) if clocks else None


def _sizes(run: Run) -> dict[str, float]:
    return {
        "checkpoints": _bytes((run.path / "checkpoints").rglob("*")),
        "samples": _bytes((run.path / "samples").rglob("*")),
        "others": _bytes(run.path.iterdir()),
    }


def _bytes(files: Iterable[Path]) -> float:
    return float(sum(file.stat().st_size for file in files if file.is_file()))
