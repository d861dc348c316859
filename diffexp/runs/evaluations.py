"""What `diffexp evaluate` measured of a run, one JSON file a question, read back. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from diffexp.io.jsonio import finite, read_json
from diffexp.runs.study import Run


@dataclass(frozen=True)
class Evaluation:
    """One record under `<run>/evaluations/`.

    Attributes:
        name: The file's name without ".json".
        sampler: The sampler's name.
        steps: Its steps; None for a sampler that chooses them itself.
        eta: Its stochasticity; None where the sampler has none.
        grid: Its grid of times; None where the sampler has none.
        clip: Whether predictions of x0 were clamped to [-1, 1].
        nfe: Network evaluations per sample.
        weights: Which weights were measured: "last" or "best".
        step: Training steps of these weights.
        metrics: The finite numbers.
        settings: The sampler's, metric's and other sections of the configuration.
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
    """The run's evaluations by name; files that are none are left out, links out of the study not followed."""
    folder = run.path / "evaluations"
    names = sorted(path.name for path in folder.glob("*.json")) if folder.is_dir() else []
    found = [_evaluation(name.removesuffix(".json"), read_json(file))
             for name in names if (file := run.file(f"evaluations/{name}"))]  # fmt: skip
    return tuple(each for each in found if each)


def _evaluation(name: str, record: dict[str, Any] | None) -> Evaluation | None:
    if not record:
        return None
    nfe, step, metrics = finite(record.get("nfe")), finite(record.get("step")), record.get("metrics")
    if nfe is None or step is None or not isinstance(record.get("sampler"), str) or not isinstance(metrics, dict):
        return None
    numbers = {str(key): finite(value) for key, value in cast(dict[str, Any], metrics).items()}
    steps, grid, settings = finite(record.get("steps")), record.get("grid"), record.get("settings")
    return Evaluation(
        name,
        record["sampler"],
        None if steps is None else int(steps),
        finite(record.get("eta")),
        None if grid is None else str(grid),
        bool(record.get("clip")),
        int(nfe),
        str(record.get("weights")),
        int(step),
        {key: value for key, value in numbers.items() if value is not None},
        cast(dict[str, Any], settings) if isinstance(settings, dict) else {},
    )
