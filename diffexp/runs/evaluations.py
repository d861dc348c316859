"""What was measured of a trained run: one file a question, `<run>/evaluations/<readable>-<hash>.json`. No torch here.

A question is a sampler with its settings, the metrics with theirs, how the likelihood is measured, and which weights.
Files of several questions lie side by side; the same question measured again replaces its own file alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from diffexp.io.jsonio import finite, read_json, strict_json
from diffexp.runs.directory import readable
from diffexp.runs.study import Run

FOLDER = "evaluations"

#: The one file that 0.1 wrote.
_OLD_FILE = "evaluation.json"

_NAMES = {"Ddim": "ddim", "Ancestral": "ancestral", "Heun": "heun", "DpmSolverPP2M": "dpmpp_2m",
          "ReverseSde": "reverse_sde", "ProbabilityFlow": "probability_flow"}  # fmt: skip

#: The sampler of a question that draws no samples.
NO_SAMPLER = "none"


@dataclass(frozen=True)
class Evaluation:
    """The measurements for one question about a run.

    Attributes:
        name: Its file's name without .json.
        sampler: The choice's name; `NO_SAMPLER` where no samples were drawn.
        steps: Of the sampler. None, here and below, where the sampler has no such setting.
        eta: Of DDIM.
        grid: time, log_snr, karras, or "own" for a list of times.
        clip: Whether x0 was clamped to [-1, 1].
        nfe: Network evaluations for each sample; 0 where none were drawn.
        weights: last or best.
        step: Training steps behind the weights.
        metrics: The finite numbers, by name.
        settings: All settings of sampler, metric, likelihood and sampling.
    """

    name: str
    sampler: str
    steps: int | None
    eta: float | None
    grid: str | None
    clip: bool
    nfe: int
    weights: str
    step: int
    metrics: Mapping[str, float]
    settings: Mapping[str, Any]


def read_evaluations(run: Run) -> tuple[Evaluation, ...]:
    """All evaluations of a run that can be read, ordered by sampler, steps, weights and training steps."""
    found = [evaluation for evaluation in _read(run).values() if evaluation]
    return tuple(sorted(found, key=lambda e: (e.sampler, e.steps or 0, e.weights, e.step, e.name)))


def unreadable_evaluations(run: Run) -> tuple[str, ...]:
    """The names of files among a run's evaluations that `read_evaluations` leaves out."""
    return tuple(name for name, evaluation in _read(run).items() if not evaluation)


def question_hash(weights: str, settings: Mapping[str, Any]) -> str:
    """Eight hex digits that name a question, whatever the order of its settings; alike for weights of every step."""
    text = json.dumps([weights, _canonical(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def record_name(sampler: str, weights: str, step: int, settings: Mapping[str, Any]) -> str:
    """The file of a question, relative to the run's directory."""
    steps = sampler_settings(settings.get("sampler"))["steps"]
    words = [sampler, *([] if steps is None else [str(steps)]), weights, str(step)]
    return f"{FOLDER}/{readable(words)}-{question_hash(weights, settings)}.json"


def sampler_settings(node: object) -> dict[str, Any]:
    """`steps`, `eta`, `grid` and `clip` of a sampler's node in the configuration, None where it has none."""
    given: Mapping[str, Any] = cast(Mapping[str, Any], node) if isinstance(node, Mapping) else dict[str, Any]()
    grid = given.get("grid")
    return {
        "steps": _whole(given.get("steps")),
        "eta": finite(given.get("eta")),
        "grid": grid if isinstance(grid, str) else "own" if isinstance(grid, list) else None,
        "clip": given["clip"] if isinstance(given.get("clip"), bool) else None,
    }


def _read(run: Run) -> dict[str, Evaluation | None]:
    folder = run.path / FOLDER
    names = sorted(file.name for file in folder.glob("*.json")) if folder.is_dir() else []
    found: dict[str, Evaluation | None] = {}
    for name in [*(f"{FOLDER}/{name}" for name in names if not name.startswith(".")), _OLD_FILE]:
        file = run.file(name)
        if file is not None:
            found[name] = _evaluation(file.stem, read_json(file) or {})
        elif name != _OLD_FILE:
            found[name] = None  # a link out of the study
    return found


def _evaluation(name: str, record: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation in a file; None if it holds none."""
    sampler, settings = record.get("sampler"), record.get("settings")
    if isinstance(sampler, Mapping):  # 0.1 wrote the nodes themselves
        settings = {key: record.get(key) for key in ("sampler", "metric", "likelihood")}
        path = str(cast(Mapping[str, Any], sampler).get("_target_", "")).rpartition(".")[2]
        sampler = _NAMES.get(path, path)
        record = {**record, **sampler_settings(settings["sampler"])}
    metrics, step = record.get("metrics"), _whole(record.get("step"))
    if (
        not (isinstance(sampler, str) and isinstance(settings, Mapping) and isinstance(metrics, Mapping))
        or step is None
    ):
        return None
    numbers = {str(key): finite(value) for key, value in cast(Mapping[Any, Any], metrics).items()}
    grid = record.get("grid")
    return Evaluation(
        name=name,
        sampler=" ".join(sampler.split())[:100],
        steps=_whole(record.get("steps")),
        eta=finite(record.get("eta")),
        grid=grid if isinstance(grid, str) else None,
        clip=record.get("clip") is True,
        nfe=_whole(record.get("nfe")) or 0,
        weights=" ".join(str(record.get("weights", "last")).split())[:100],
        step=step,
        metrics={key: number for key, number in numbers.items() if number is not None},
        settings=cast(Mapping[str, Any], settings),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def _canonical(value: object) -> object:
    """Plain values in which 1 and 1.0 are alike."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in cast(list[Any], value)]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else json.loads(strict_json(value))
