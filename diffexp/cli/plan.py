"""`diffexp plan STUDY-COMMAND`: what `diffexp train STUDY-COMMAND` would do and cost. Nothing is trained or written."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp.cli.plans import Cost, Job, Plan

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from diffexp.cli.precedents import Precedents
    from diffexp.cli.workload import Speed
    from diffexp.denoiser import Denoiser
    from diffexp.training.setup import Setup as Problem


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 2 for what `diffexp train` would refuse, in its words."""
    from diffexp.cli.hydra_app import run_hydra_app
    from diffexp.cli.train import check

    words = [word for word in argv if word != "--json"]
    if "--help" in words or "-h" in words:
        words.append("hydra/help=plan")
    planner = Planner()
    code = run_hydra_app(check, "train", words, check, planner.add, name="plan", launch=False)
    if code == 0 and planner.plan.jobs:
        _print(planner.plan, as_json="--json" in argv)
    return code


def _print(plan: Plan, as_json: bool) -> None:
    from rich.console import Console

    from diffexp.cli.plan_table import plan_json, plan_lines
    from diffexp.io.jsonio import strict_json

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
        self._speeds: dict[str, Speed] = {}

    def add(self, cfg: "DictConfig") -> None:
        """One job, in the surroundings that it would itself see; a repeated one counts once."""
        from diffexp.cli.identity import chosen_files, plain, run_directory
        from diffexp.cli.precedents import work

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
        state, seen = _stands(directory.path, images)
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
            self.plan.at_a_time, self.plan.threads = instantiate(hydra.launcher).concurrency()
        else:
            self.plan.at_a_time = int(hydra.launcher.get("array_parallelism") or 1)

    def _cost(self, cfg: "DictConfig", chosen: Mapping[str, str], wanted: Mapping[str, Any]) -> Cost:
        from diffexp.cli import build
        from diffexp.cli.precedents import Precedents
        from diffexp.cli.workload import device_name, workload
        from diffexp.training.devices import resolve_precision

        parts, where = build.setup(cfg, chosen), build.device(cfg)
        denoiser = parts.denoiser(int(cfg.seed), where)
        counted = workload(cfg, parts, denoiser)
        steps, batch = int(cfg.trainer.max_steps), int(cfg.training.batch_size)
        device = device_name(where)
        known = self._precedents.setdefault(Path(cfg.root), Precedents(Path(cfg.root)))
        before = known.of(wanted, device, resolve_precision(str(cfg.compute.precision), where))
        if before:
            pace, after, timed = before.seconds_per_image, before.seconds_after, f"{before.runs} finished"
            sizes = {"checkpoints": before.checkpoints, "samples": before.samples,
                     "metrics": before.others_per_image * steps * batch}  # fmt: skip
            sized = timed
        else:
            speed = self._speed(cfg, chosen, parts, denoiser)
            pace = speed.seconds_per_image + counted.validated * speed.seconds_per_answer / max(1, steps * batch)
            after, timed = counted.sampled * speed.seconds_per_answer, speed.said(batch)
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

    def _speed(self, cfg: "DictConfig", chosen: Mapping[str, str], parts: "Problem", denoiser: "Denoiser") -> "Speed":
        """Timed once for each network, data and batch size, whatever else is swept."""
        from diffexp.cli import build
        from diffexp.cli.workload import measured_speed

        key = "\n".join(
            map(str, [cfg.network, cfg.data, cfg.compute, cfg.training.batch_size, cfg.trainer.accelerator])
        )
        if key not in self._speeds:
            print(f"timing network={chosen['network']} on data={chosen['data']} ...", file=sys.stderr, flush=True)
            threads = None if "OMP_NUM_THREADS" in os.environ else self.plan.threads
            self._speeds[key] = measured_speed(cfg, parts, denoiser, build.device(cfg), threads)
        return self._speeds[key]


def _stands(path: Path, images: int) -> tuple[str, float]:
    """What the command would find there, and how many images need not be seen again."""
    from diffexp.runs.state import state_of
    from diffexp.runs.study import Run

    run = Run.at(path)
    if run is None or not (path / "run.json").exists():
        return "new", 0.0
    found, seen = state_of(run, time.time()), run.number("images_seen") or 0.0
    if found in ("diverged", "running", "unreadable") or (found == "done" and seen >= images):
        return found, min(seen, images)
    if not (path / "checkpoints" / "last.ckpt").is_file():
        seen = 0.0
    elif found in ("stopped", "failed"):  # goes on from its last checkpoint
        every = _images_between_checkpoints(run.config)
        seen = seen // every * every
    return ("failed" if found == "failed" else "resumable"), min(seen, images)


def _images_between_checkpoints(config: Mapping[str, Any]) -> float:
    try:
        return max(1.0, float(config["checkpoint"]["every_n_steps"]) * float(config["training"]["batch_size"]))
    except (KeyError, TypeError, ValueError):  # edited by hand
        return 1.0


def _estimated_bytes(cfg: "DictConfig", parts: "Problem", parameters: int, denoiser: "Denoiser") -> dict[str, float]:
    """Of one run: weights, average, Adam's two moments, best and last average, float32; raw pixels; lines of text."""
    tensors = len(list(denoiser.network.parameters()))
    steps, every = int(cfg.trainer.max_steps), cfg.sampling.every
    pictures = 3 + (steps // int(every) if every else 0)
    validations = -(-steps // int(cfg.validation.every)) + 1
    return {
        "checkpoints": 24.0 * parameters + 6 * 450 * tensors,
        "samples": float(pictures * int(cfg.sampling.grid) * math.prod(parts.data.image_shape)),
        "metrics": 140.0 * (steps // int(cfg.training.log_every) + 1) + 2_500.0 * validations + 7_000,
    }
