"""Every schedule and target by its conf name, and reference values from another program."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffexp import schedule as schedules
from diffexp import targets
from diffexp.schedule import Schedule
from diffexp.targets import Target

SCHEDULES: dict[str, Schedule] = {
    "linear_beta": schedules.LinearBeta(),
    "cosine": schedules.Cosine(),
    "linear_beta_cont": schedules.LinearBetaCont(),
    "cosine_cont": schedules.CosineCont(),
    "rectified": schedules.Rectified(),
    "edm": schedules.Edm(),
}
CHAINS = ("linear_beta", "cosine")
PATHS = tuple(name for name in SCHEDULES if name not in CHAINS)
VARIANCE_PRESERVING = (*CHAINS, "linear_beta_cont", "cosine_cont")
TARGETS: dict[str, Target] = {
    "epsilon": targets.Epsilon(),
    "scaled_noise": targets.ScaledNoise(),
    "step_noise": targets.StepNoise(),
    "unit_step_noise": targets.UnitStepNoise(),
    "step_difference": targets.StepDifference(),
    "x0": targets.X0(),
    "posterior_mean": targets.PosteriorMean(),
    "previous_sample": targets.PreviousSample(),
    "score": targets.Score(),
    "v": targets.V(),
    "flow": targets.Flow(),
    "edm": targets.Edm(),
}
WITH_LABEL_NOISE = ("step_noise", "unit_step_noise", "previous_sample")
"""Targets with c != 0."""

PAIRS = [(s, t) for s in SCHEDULES for t in TARGETS if not (t == "flow" and s in CHAINS)]

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_path = pytest.mark.parametrize("schedule", [SCHEDULES[s] for s in PATHS], ids=PATHS)
every_chain = pytest.mark.parametrize("schedule", [SCHEDULES[s] for s in CHAINS], ids=CHAINS)
every_target_and_schedule = pytest.mark.parametrize(
    ("schedule", "target"),
    [(SCHEDULES[s], TARGETS[t]) for s, t in PAIRS],
    ids=[f"{t}-on-{s}" for s, t in PAIRS],
)


def targets_on(schedule: Schedule) -> dict[str, Target]:
    """The targets that mean something on `schedule`."""
    return {name: t for name, t in TARGETS.items() if not (name == "flow" and schedule.is_chain)}


def times_on(schedule: Schedule, dtype: torch.dtype = torch.float64) -> Tensor:
    """Twelve times over the schedule's own range, (12, 1, 1, 1); k / T on a chain."""
    steps = [1, 2, 3, 10, 50, 100, 250, 500, 700, 900, 990, 999]
    return per_image([k / 1000 for k in steps], dtype)


def per_image(numbers: ArrayLike | Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers as (batch, 1, 1, 1)."""
    return torch.as_tensor(numbers, dtype=torch.float64).reshape(-1, 1, 1, 1).to(dtype)


def images(seed: int, like: Tensor, channels: int = 2) -> Tensor:
    """Unit normal 3 x 3 images, one for each time in `like`."""
    made = torch.Generator().manual_seed(seed)
    return torch.randn(len(like), channels, 3, 3, generator=made, dtype=torch.float64)


@functools.cache
def reference(name: str) -> Any:
    """tests/reference/<name>.json"""
    return json.loads((Path(__file__).parents[1] / "reference" / f"{name}.json").read_text())
