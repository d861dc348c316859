"""`diffexp plan STUDY-COMMAND`: what `diffexp train STUDY-COMMAND` would do and cost. Nothing is trained or written."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp.runs.config_keys import STEP_COST, below
from diffexp.runs.state_names import STATES, TO_TRAIN

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SHOWN = ("training.batch_size", "trainer.max_steps")  # in columns of their own

_MOST = 20  # runs that the table lists one by one


@dataclass(frozen=True)
class Cost:
    """What a run of one configuration takes.

    Attributes:
        network, data: The choices.
        batch_size, images_per_run: Of the configuration.
        parameters: Of the network.
        flops_per_step: See `workload.step_flops`.
        seconds_per_step: Of training alone; see `workload.seconds_per_step`.
        device: What it was timed on.
        work: The settings that decide all of these, flat.
    """

    network: str
    data: str
    batch_size: int
    images_per_run: int
    parameters: int
    flops_per_step: int
    seconds_per_step: float
    device: str
    work: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
        path: Its directory.
        state: One of `diffexp.runs.state_names.STATES`.
        images_seen: Images that it need not see again.
        cost: Of its configuration.
    """

    path: str
    state: str
    images_seen: float
    cost: Cost

    @property
    def steps_left(self) -> float:
        """0 if the command would not train it."""
        return (self.cost.images_per_run - self.images_seen) / self.cost.batch_size if self.state in TO_TRAIN else 0.0

    @property
    def seconds_left(self) -> float:
        """Of training."""
        return self.steps_left * self.cost.seconds_per_step


@dataclass
class Plan:
    """All jobs of one command, and the costs of their configurations."""

    jobs: list[Job] = field(default_factory=list[Job])
    costs: list[Cost] = field(default_factory=list[Cost])

    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        counts = Counter(job.state for job in self.jobs)
        return {state: counts[state] for state in reversed(STATES) if counts[state]}

    def total(self) -> dict[str, int | float]:
        """Of what is left to do; seconds of training, as if one run followed another."""
        return {
            "runs": sum(job.state in TO_TRAIN for job in self.jobs),
            "images": sum(job.steps_left * job.cost.batch_size for job in self.jobs),
            "flops": sum(job.steps_left * job.cost.flops_per_step for job in self.jobs),
            "seconds": sum(job.seconds_left for job in self.jobs),
        }

    def add(self, cfg: "DictConfig") -> None:
        """Add the job of a configuration, while HydraConfig is its own; a repeated one counts once."""
        from diffexp.cli.identity import chosen_files, plain, run_directory
        from diffexp.runs.directory import flat

        chosen = chosen_files()
        path = run_directory(cfg, chosen).path
        if str(path) in {job.path for job in self.jobs}:
            return
        work = {key: value for key, value in flat(plain(cfg)) if below(key, STEP_COST)}
        cost = next((cost for cost in self.costs if cost.work == work), None)
        if cost is None:
            cost = _cost(cfg, chosen, work)
            self.costs.append(cost)
        self.jobs.append(Job(str(path), *_state(path, cost.images_per_run), cost))


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 2 for an error that `diffexp train` would report, with its message."""
    from diffexp.cli.hydra_app import run_hydra_app
    from diffexp.cli.train import check

    words = [word for word in argv if word != "--json"]
    if "--help" in words or "-h" in words:
        words.append("hydra/help=plan")
    plan = Plan()
    code = run_hydra_app(check, "train", words, check, plan.add, name="plan", launch=False)
    if code == 0 and plan.jobs and "--json" in argv:
        from diffexp.io.jsonio import strict_json

        print(strict_json(plan_json(plan), indent=2))
    elif code == 0 and plan.jobs:
        _print(plan)
    return code


def _cost(cfg: "DictConfig", chosen: Mapping[str, str], work: Mapping[str, Any]) -> Cost:
    import torch

    from diffexp.cli import build
    from diffexp.report.format import counted
    from diffexp.training.devices import device_name, seeded
    from diffexp.training.workload import seconds_per_step, step_flops

    print(f"timing network={chosen['network']} on data={chosen['data']} ...", file=sys.stderr, flush=True)
    device, seed = build.device(cfg), int(cfg.seed)
    parts = build.setup(cfg, chosen).to(device)
    parts = replace(parts, compute=replace(parts.compute, compile=False))  # compilation takes longer than the timing
    module = parts.module(parts.denoiser(seed, device), seed).to(device)
    with seeded(0):
        flops, seconds = step_flops(module), seconds_per_step(module, cfg.trainer.get("gradient_clip_val"))
    return Cost(
        network=chosen["network"],
        data=chosen["data"],
        batch_size=module.batch_size,
        images_per_run=int(cfg.trainer.max_steps) * module.batch_size,
        parameters=sum(p.numel() for p in module.denoiser.network.parameters()),
        flops_per_step=flops,
        seconds_per_step=seconds,
        device=device_name(device)
        + ("" if device.type == "cuda" else f", {counted(torch.get_num_threads(), 'thread')}"),
        work=work,
    )


def _state(path: Path, images: int) -> tuple[str, float]:
    """What the command would find there, and how many images need not be seen again."""
    from diffexp.runs.run_state import images_seen, state_of
    from diffexp.runs.study import Run

    run = Run.at(path)
    if run is None or not (path / "run.json").exists():
        return "not started", 0.0
    found, seen = state_of(run, time.time()), images_seen(run) or 0.0
    if found in ("diverged", "running", "unreadable") or (found == "done" and seen >= images):
        return found, min(seen, images)
    if not (path / "checkpoints" / "last.ckpt").is_file():
        seen = 0.0
    elif found in ("stopped", "failed"):  # resumes from its last checkpoint
        every = _images_between_checkpoints(run.config)
        seen = seen // every * every
    return ("not started" if found in ("done", "starting") else found), min(seen, images)


def _images_between_checkpoints(config: Mapping[str, Any]) -> float:
    try:
        return max(1.0, float(config["checkpoint"]["every_n_steps"]) * float(config["training"]["batch_size"]))
    except (KeyError, TypeError, ValueError):  # edited by hand
        return 1.0


def plan_json(plan: Plan) -> dict[str, Any]:
    """All of it, for `strict_json`; seconds, and shares in [0, 1]."""
    return {
        "states": plan.states(),
        "configurations": [
            {**asdict(cost), "settings": _distinguishing(cost, plan.costs), "runs": _runs(cost, plan.jobs)}
            for cost in plan.costs
        ],
        "runs": [
            {
                "path": job.path,
                "state": job.state,
                "progress": job.images_seen / job.cost.images_per_run,
                "configuration": plan.costs.index(job.cost),
                "seconds": job.seconds_left,
            }
            for job in plan.jobs
        ],
        "total": plan.total(),
    }


def _print(plan: Plan) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from diffexp.io.redact import on_one_line
    from diffexp.report.format import count, scaled

    console = Console(highlight=False, soft_wrap=True, width=1000)  # a table is as wide as it needs to be
    for line in _job_lines(plan):
        console.print(Text(line))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in ("network", "data", "settings"):
        table.add_column(heading)
    for heading in ("batch", "runs", "parameters", "FLOPs/step", "s/step", "images/run"):
        table.add_column(heading, justify="right")
    for cost in plan.costs:
        words = (cost.network, cost.data, _distinguishing(cost, plan.costs))
        flops, pace = scaled(float(cost.flops_per_step)).strip(), f"{cost.seconds_per_step:.3g}"
        numbers = (f"{cost.batch_size}", f"{_runs(cost, plan.jobs)}", count(cost.parameters), flops, pace)
        table.add_row(*(Text(on_one_line(word)) for word in words), *numbers, count(cost.images_per_run))
    console.print(table)
    console.print(Text(_sum_line(plan)))


def _job_lines(plan: Plan) -> Iterator[str]:
    from diffexp.io.redact import on_one_line
    from diffexp.report.format import counted, percent

    yield f"{counted(len(plan.jobs), 'run')}: " + ", ".join(f"{n} {state}" for state, n in plan.states().items())
    begun = [job for job in plan.jobs if job.state not in ("not started", "done", "diverged") or job.images_seen]
    for job in begun[:_MOST]:
        yield f"  {job.state:<12} {percent(job.images_seen / job.cost.images_per_run):>5}  {on_one_line(job.path)}"
    if len(begun) > _MOST:
        yield f"  and {len(begun) - _MOST} more"


def _sum_line(plan: Plan) -> str:
    from diffexp.io.progress import clock
    from diffexp.report.format import count, counted, scaled

    total = plan.total()
    if not total["runs"]:
        return "to do: nothing"
    devices = " and ".join(sorted({cost.device for cost in plan.costs}))
    return (
        f"to do: {counted(int(total['runs']), 'run')}, {count(total['images'])} images, {scaled(total['flops'])}FLOPs, "
        f"{clock(total['seconds'])} of training on {devices}; validation, samples and metrics not counted"
    )


def _runs(cost: Cost, jobs: Sequence[Job]) -> int:
    return sum(job.cost is cost for job in jobs)


def _distinguishing(cost: Cost, costs: Sequence[Cost]) -> str:
    """The settings in which it differs from others of the same choices, as "network.widths=[8]"."""
    alike = [each.work for each in costs if (each.network, each.data) == (cost.network, cost.data)]
    return " ".join(
        f"{key}={json.dumps(value)}"
        for key, value in cost.work.items()
        if key not in _SHOWN and any(each.get(key) != value for each in alike)
    )
