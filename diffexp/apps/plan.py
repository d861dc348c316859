"""`diffexp plan STUDY-COMMAND`: what `diffexp train STUDY-COMMAND` would do and cost. Nothing is trained or written."""

import heapq
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from diffexp.apps.precedents import Precedents

#: What the command would meet, in the order of the table.
STATES = ("new", "resumable", "done", "diverged", "failed", "running", "unreadable")

#: Those that the command would train, or go on training.
TO_DO = ("new", "resumable", "failed")


@dataclass(frozen=True)
class Cost:
    """What a run of one configuration takes, as far as anybody knows before it runs.

    Attributes:
        network, data, batch_size, images: Of the configuration; images are those of a whole run.
        parameters, flops_per_step: See `workload.Workload`.
        device: What it would train on.
        seconds_per_image: Of training, validation included.
        seconds_after: From the last step to the end.
        timed: How that is known.
        bytes: `checkpoints`, `samples`, `metrics`: of one run.
        sized: How that is known.
        work: See `precedents.work`.
    """

    network: str
    data: str
    batch_size: int
    images: int
    parameters: int
    flops_per_step: int
    device: str
    seconds_per_image: float
    seconds_after: float
    timed: str
    bytes: Mapping[str, float]
    sized: str
    work: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Of a whole run."""
        return self.images * self.seconds_per_image + self.seconds_after


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
        path: Its directory.
        state: One of `STATES`.
        images_seen: Images that it need not see again.
        cost: Which of the plan's costs is its.
    """

    path: str
    state: str
    images_seen: float
    cost: int


@dataclass
class Plan:
    """All jobs of one command.

    Attributes:
        launcher: The choice of hydra/launcher.
        at_a_time: Jobs that it runs at once.
        threads: For each of them, on a CPU; None: as many as torch likes.
    """

    jobs: list[Job] = field(default_factory=list[Job])
    costs: list[Cost] = field(default_factory=list[Cost])
    launcher: str = "basic"
    at_a_time: int = 1
    threads: int | None = None

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        counts = Counter(job.state for job in self.jobs)
        return {state: counts[state] for state in STATES if counts[state]}

    @property
    def to_do(self) -> list[Job]:
        """The jobs that the command would train."""
        return [job for job in self.jobs if job.state in TO_DO]

    def seconds(self, job: Job) -> float:
        """What is left of the job; 0 where the command would leave it alone."""
        if job.state not in TO_DO:
            return 0.0
        cost = self.costs[job.cost]
        return (cost.images - job.images_seen) * cost.seconds_per_image + cost.seconds_after

    def wall_seconds(self) -> float:
        """Until the last job ends, if each starts, in their order, as soon as there is room."""
        slots = [0.0] * max(1, min(self.at_a_time, len(self.to_do)))
        for job in self.to_do:
            heapq.heapreplace(slots, slots[0] + self.seconds(job))
        return max(slots)

    def totals(self) -> dict[str, Any]:
        """Of what is left to do; bytes are those of all runs of the command, once they are done."""
        left = [self.costs[job.cost].images - job.images_seen for job in self.to_do]
        sizes = Counter[str]()
        for job in self.jobs:
            sizes.update(self.costs[job.cost].bytes)
        return {
            "runs": len(self.to_do),
            "images": sum(left),
            "flops": sum(
                image * self.costs[job.cost].flops_per_step / self.costs[job.cost].batch_size
                for job, image in zip(self.to_do, left, strict=True)
            ),
            "seconds": sum(self.seconds(job) for job in self.jobs),
            "wall_seconds": self.wall_seconds(),
            "bytes": dict(sizes),
        }


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 2 for what `diffexp train` would refuse, in its words."""
    from diffexp.apps.hydra_app import run_hydra_app
    from diffexp.apps.train import check, train

    words = [word for word in argv if word != "--json"]
    if "--help" in words or "-h" in words:
        words.append("hydra/help=plan")
    planner = Planner()
    code = run_hydra_app(train, "train", words, check, planner.add, name="plan", launch=False)
    if code == 0 and planner.plan.jobs:
        _print(planner.plan, as_json="--json" in argv)
    return code


def _print(plan: Plan, as_json: bool) -> None:
    from rich.console import Console

    from diffexp.apps.plan_table import plan_json, plan_lines
    from diffexp.records import strict_json

    if as_json:
        print(strict_json(plan_json(plan), indent=2))
        return
    console = Console(highlight=False)
    for line in plan_lines(plan):
        console.print(line, soft_wrap=True)


class Planner:
    """Takes the jobs of a command, one after the other, as a check of them."""

    def __init__(self) -> None:
        self.plan = Plan()
        self._known: dict[str, int] = {}
        self._precedents: dict[Path, Precedents] = {}

    def add(self, cfg: "DictConfig") -> None:
        """One job, in the surroundings that it would itself see; a repeated one counts once."""
        from diffexp.apps.precedents import work
        from diffexp.apps.record import chosen_files, plain, run_directory

        chosen = chosen_files()
        directory = run_directory(cfg, chosen)
        if str(directory.path) in {job.path for job in self.plan.jobs}:
            return
        if not self.plan.jobs:
            self._launcher()
        config = plain(cfg)
        images = int(cfg.trainer.max_steps) * int(cfg.training.batch_size)
        key = json.dumps([work(config), images, str(cfg.trainer.accelerator)], sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = len(self.plan.costs)
            self.plan.costs.append(self._cost(cfg, chosen, work(config)))
        state, seen = _stands(directory.path, images, int(cfg.checkpoint.every_n_steps) * int(cfg.training.batch_size))
        self.plan.jobs.append(Job(str(directory.path), state, seen, self._known[key]))

    def _launcher(self) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from hydra.utils import instantiate

        hydra: Any = HydraConfig.get()
        if hydra.mode is not RunMode.MULTIRUN:
            return
        self.plan.launcher = str(hydra.runtime.choices["hydra/launcher"])
        if str(hydra.launcher.get("_target_")).endswith(".LocalLauncher"):
            launcher = instantiate(hydra.launcher)
            self.plan.at_a_time = launcher.jobs
            self.plan.threads = max(1, launcher.cores // launcher.jobs)
        else:
            self.plan.at_a_time = int(hydra.launcher.get("array_parallelism") or 1)

    def _cost(self, cfg: "DictConfig", chosen: Mapping[str, str], wanted: Mapping[str, Any]) -> Cost:
        import torch

        from diffexp.apps import build
        from diffexp.apps.precedents import Precedents
        from diffexp.apps.workload import measured_speed, workload

        parts, where = build.problem(cfg, chosen), build.device(cfg)
        denoiser = build.denoiser(cfg, parts, where)
        counted = workload(cfg, parts, denoiser)
        steps, batch = int(cfg.trainer.max_steps), int(cfg.training.batch_size)
        device = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
        known = self._precedents.setdefault(Path(cfg.root), Precedents(Path(cfg.root)))
        before = known.of(wanted, device, build.precision(cfg, where))
        if before:
            pace, after, timed = before.seconds_per_image, before.seconds_after, f"{before.runs} finished"
            sizes = {"checkpoints": before.checkpoints, "samples": before.samples,
                     "metrics": before.others_per_image * steps * batch}  # fmt: skip
            sized = timed
        else:
            print(f"timing network={chosen['network']} on data={chosen['data']} ...", file=sys.stderr, flush=True)
            threads = torch.get_num_threads()
            if self.plan.threads and "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(self.plan.threads)
            try:
                speed = measured_speed(cfg, parts, denoiser, where)
                used = torch.get_num_threads()
            finally:
                torch.set_num_threads(threads)
            pace = speed.seconds_per_image + counted.validated * speed.seconds_per_answer / max(1, steps * batch)
            after = counted.sampled * speed.seconds_per_answer
            on = device if where.type == "cuda" else f"cpu, {used} thread{'s' if used > 1 else ''}"
            timed = f"{speed.steps} steps" + (f" of {speed.batch}" if speed.batch < batch else "") + f" timed ({on})"
            sizes, sized = _estimated_bytes(cfg, parts, counted.parameters, denoiser), "estimated"
        return Cost(
            network=chosen["network"],
            data=chosen["data"],
            batch_size=batch,
            images=steps * batch,
            parameters=counted.parameters,
            flops_per_step=counted.flops_per_step,
            device=device,
            seconds_per_image=pace,
            seconds_after=after,
            timed=timed,
            bytes=sizes,
            sized=sized,
            work=wanted,
        )


def _stands(path: Path, images: int, checkpointed: int) -> tuple[str, float]:
    """What the command would find there, and how many images need not be seen again."""
    import time

    from diffexp.states import state_of
    from diffexp.studies import Run

    run = Run.at(path)
    if run is None or not (path / "run.json").exists():
        return "new", 0.0
    found, seen = state_of(run, time.time()), run.number("images_seen") or 0.0
    if found in ("diverged", "running", "unreadable") or (found == "done" and seen >= images):
        return found, min(seen, images)
    if not (path / "checkpoints" / "last.ckpt").is_file():
        seen = 0.0
    elif found in ("stopped", "failed"):  # goes on from its last checkpoint
        seen = seen // checkpointed * checkpointed
    return ("failed" if found == "failed" else "resumable"), min(seen, images)


def _estimated_bytes(cfg: "DictConfig", parts: Any, parameters: int, denoiser: Any) -> dict[str, float]:
    """Of one run: the weights, their average and Adam's two moments, float32; pictures as raw pixels; lines of text."""
    import math

    tensors = len(list(denoiser.network.parameters()))
    steps, every = int(cfg.trainer.max_steps), cfg.sampling.every
    pictures = 3 + (steps // int(every) if every else 0)
    validations = steps // int(cfg.validation.every) + 2
    return {
        "checkpoints": 16.0 * parameters + 4 * 450 * tensors,
        "samples": float(pictures * int(cfg.sampling.grid) * math.prod(parts.data.image_shape)),
        "metrics": 140.0 * (steps // int(cfg.training.log_every) + 1) + 3_000.0 * validations + 8_000,
    }
