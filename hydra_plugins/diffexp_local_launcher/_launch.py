"""One launch: the commands of a sweep as processes of this machine, and from their exit codes to Hydra's JobReturn."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn

from hydra_plugins.diffexp_local_launcher._display import Display
from hydra_plugins.diffexp_local_launcher._jobs import JobError, Plan, plan
from hydra_plugins.diffexp_local_launcher._narrator import say
from hydra_plugins.diffexp_local_launcher._processes import Job, StoppedError, run_all
from hydra_plugins.diffexp_local_launcher._returned import CALLBACK, FILE, read_returned
from hydra_plugins.diffexp_local_launcher._slots import Slot, cpu_slots, gpu_slots, usable_cpus, visible_gpus

if TYPE_CHECKING:
    from hydra_plugins.diffexp_local_launcher.local_launcher import LocalLauncher

_STAGGER = 1.0  # seconds, with GPUs: not all jobs read the libraries and start CUDA in the same moment


def launch(launcher: "LocalLauncher", job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Runs a batch of jobs, each in a slot of this machine, and says when each starts and ends.

    Args:
        launcher: The sweep's settings.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The program cannot be started again as it was, or the slots are not to be had.
        KeyboardInterrupt, SystemExit: A signal ended the jobs.
    """
    planned = plan(launcher, job_overrides, first)
    if planned.runs:
        with TemporaryDirectory(prefix="returned-") as returned:
            _run(launcher, planned, Path(returned))
    return planned.outcomes


def slots_of(launcher: "LocalLauncher") -> tuple[list[str], list[Slot]]:
    """The GPUs that the sweep may use, and its slots on them; without GPUs, slots on the cores."""
    gpus = visible_gpus() if launcher.gpus is None else launcher.gpus
    return gpus, gpu_slots(gpus, launcher.jobs_per_gpu) if gpus else cpu_slots(launcher.jobs or len(usable_cpus()))


def threads_each(at_a_time: int) -> int:
    """A job's share of the cores."""
    return max(1, len(usable_cpus()) // at_a_time)


def _run(launcher: "LocalLauncher", planned: Plan, returned: Path) -> None:
    runs, logs = planned.runs, planned.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    gpus, slots = slots_of(launcher)
    at_a_time, _ = launcher.concurrency()
    stagger = launcher.stagger if launcher.stagger is not None else _STAGGER if gpus else 0.0
    jobs = [
        Job(
            command=[*run.command, CALLBACK],
            folder=launcher.config.hydra.runtime.cwd,
            environment={**_shared(at_a_time), **os.environ, FILE: f"{returned}/{run.number}", **run.environment},
            log=logs / f"{run.number}.log",
        )
        for run in runs
    ]
    numbers = [run.number for run in runs]
    display = Display([job.log for job in jobs], numbers, [run.name for run in runs], at_a_time, len(slots))
    where = f" on GPU {', '.join(gpus)}" if gpus else ""
    say(f"{len(jobs)} jobs, {min(at_a_time, len(jobs))} at a time{where}; what they print goes to {logs}")
    try:
        with display.shown():
            codes = run_all(jobs, slots, display, at_a_time, stagger, launcher.fail_fast)
    except PermissionError as error:
        raise JobError(str(error)) from None
    except StoppedError as stopped:
        say(f"{stopped}: all jobs were ended; {display.states['done']} of {len(jobs)} had finished")
        if str(stopped) == "SIGINT":
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signal) from None
    failed = ", ".join(f"{number}.log" for number, code in zip(numbers, codes, strict=True) if code)
    others = {word: display.states[word] for word in ("interrupted", "stopped")}
    others["not started"] = len(jobs) - display.states.total()
    rest = "".join(f", {count} {word}" for word, count in others.items() if count)
    text = f"{display.failed} of {len(jobs)} jobs failed{rest}. What they printed is in {logs}: {failed}"
    for run, code in zip(runs, codes, strict=True):
        run.outcome.return_value = read_returned(returned / str(run.number))
        run.end(JobError(text) if code != 0 else None)


def _shared(at_a_time: int) -> dict[str, str]:
    """Set before the job's first import, for a library reads its number of threads once.

    Left alone, every job would start one thread for each core: many times slower than sharing the cores.
    """
    return {"OMP_NUM_THREADS": str(threads_each(at_a_time)), "PYTHONUNBUFFERED": "1"}
