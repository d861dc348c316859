"""The state of every run of a study at this moment, from its files alone: no process is queried, no torch is imported.

A run recorded as "running" is running while a process holds its lock. On another machine, whose locks not every file
system shows, it is also running while its heartbeat is fresh.
"""

import itertools
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffexp.io.files import is_locked
from diffexp.io.jsonio import finite, parse_json
from diffexp.runs.metric_keys import is_band
from diffexp.runs.state_names import STATES
from diffexp.runs.study import Run, read_study

#: Seconds after which another machine's run that has shown no activity counts as stopped.
SILENCE = 60.0

#: How much of the end of metrics.jsonl is read: bytes, and readings of the training loss among them.
_TAIL, _READINGS = 64 * 1024, 20


@dataclass(frozen=True)
class RunState:
    """One run at one moment; None where its files do not have it.

    Attributes:
        run: `<readable choices>-<hash>/seed=<N>`, its place in the study.
        state: One of `states.STATES`.
        images_seen: Images trained on.
        max_images: Images to be trained on.
        images_per_second: Lately, validation not counted.
        eta: Seconds of training left at the speed of late, validation counted; only while it is running.
        silent: Seconds since its last activity.
        device: What it trains on.
        error: Why it failed, in one line.
        command: What repeats it, safe to be pasted into a shell.
        metrics: The last value of each metric, bands of log-SNR left out.
    """

    run: str
    state: str
    images_seen: float | None
    max_images: float | None
    images_per_second: float | None
    eta: float | None
    silent: float | None
    device: str | None
    error: str | None
    command: str | None
    metrics: Mapping[str, float]

    @property
    def progress(self) -> float | None:
        """The share of its images that it has seen, in [0, 1]."""
        if self.images_seen is None or not self.max_images or self.max_images < 0:
            return None
        return min(1.0, max(0.0, self.images_seen / self.max_images))


def study_states(study: Path) -> list[RunState]:
    """All runs in a study's folder, those that need attention first."""
    now = time.time()
    states = [run_state(run, now) for run in read_study(study)]
    return sorted(states, key=lambda each: STATES.index(each.state))


def run_state(run: Run, now: float) -> RunState:
    """One run at the time `now`, in seconds since the epoch."""
    state, lines = state_of(run, now), _last_lines(run)
    trained = [line for line in lines if "train/loss" in line][-_READINGS:]
    seen, goal = _images_seen(run, lines), run.number("max_images")
    metrics = {key: value for key, value in run.final.items() if not is_band(key)}
    if trained and (loss := finite(trained[-1]["train/loss"])) is not None:
        metrics = {"train/loss": loss, **metrics}
    speed = finite(trained[-1].get("time/images_per_second")) if trained else None
    eta = None
    if state == "running" and seen is not None and goal is not None and (rate := _rate(trained) or speed):
        eta = max(0.0, goal - seen) / rate if rate > 0 else None
    return RunState(
        run=f"{run.name}/{run.path.name}",
        state=state,
        images_seen=seen,
        max_images=goal,
        images_per_second=speed,
        eta=eta,
        silent=_silent(run, now),
        device=run.text("device") or None,
        error=run.text("error") or None,
        command=repeating(run.text("command"), run.path.parents[2]),
        metrics=metrics,
    )


def state_of(run: Run, now: float) -> str:
    """One of `states.STATES` at the time `now`."""
    if run.status != "running" or _locked(run):
        return run.status
    elsewhere = run.text("host") not in ("", platform.node())
    beat = _touched(run, "heartbeat")
    return "running" if elsewhere and beat is not None and now - beat < SILENCE else "stopped"


def repeating(command: str, root: Path) -> str | None:
    """The recorded command if it is diffexp's, quoted again, so that it is safe in a shell.

    It names the run's `root` where it would not find it from the current folder.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if words[:2] != ["diffexp", "train"]:
        return None
    roots = [word.partition("=")[2] for word in words if word.startswith("root=")] or ["runs"]
    if Path(roots[-1].strip("'")).resolve() != root.resolve():
        words = [*(word for word in words if not word.startswith("root=")), f"root={_value(str(root.resolve()))}"]
    return shlex.join(words)


def _value(text: str) -> str:
    """The text as a value of Hydra's override grammar: quoted, unless it is plain."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def _locked(run: Run) -> bool:
    lock = run.path.with_name(f"{run.path.name}.lock")
    return lock.is_file() and is_locked(run.path)  # a pipe of that name would block


def _silent(run: Run, now: float) -> float | None:
    touched = [_touched(run, name) for name in ("heartbeat", "metrics.jsonl", "run.json")]
    signs = [sign for sign in touched if sign is not None]
    return max(0.0, now - max(signs)) if signs else None


def _touched(run: Run, name: str) -> float | None:
    try:
        file = run.file(name)
        return file.stat().st_mtime if file else None
    except OSError:
        return None


def images_seen(run: Run) -> float | None:
    """Images that the run has trained on: run.json has it at validations, metrics.jsonl in every line."""
    return _images_seen(run, _last_lines(run))


def _images_seen(run: Run, lines: Sequence[Mapping[str, object]]) -> float | None:
    seen = [run.number("images_seen"), finite(lines[-1]["images_seen"]) if lines else None]
    return max((number for number in seen if number is not None), default=None)


def _last_lines(run: Run) -> list[dict[str, object]]:
    """The last whole lines of metrics.jsonl; the very last line may be half written."""
    try:
        file = run.file("metrics.jsonl")
        if file is None:
            return []
        with file.open("rb") as lines:
            size = lines.seek(0, 2)
            lines.seek(max(0, size - _TAIL))
            text = lines.read(_TAIL)
    except OSError:
        return []
    parsed = map(parse_json, text.split(b"\n")[size > _TAIL :])
    return [line for line in parsed if line and finite(line.get("images_seen")) is not None]


def _rate(trained: Sequence[Mapping[str, object]]) -> float | None:
    """Images per second of wall clock over the last lines of one start, in which the clock only rises."""
    points = [
        (seen, elapsed)
        for line in trained
        if (seen := finite(line["images_seen"])) is not None
        and (elapsed := finite(line.get("time/elapsed"))) is not None
    ]
    for index, (before, after) in reversed(list(enumerate(itertools.pairwise(points), 1))):
        if before[1] >= after[1] or before[0] >= after[0]:
            points = points[index:]
            break
    if len(points) < 2:
        return None
    (first, began), (last, ended) = points[0], points[-1]
    return (last - first) / (ended - began)
