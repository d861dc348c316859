"""One launch: the jobs of a sweep as processes of this machine, and their exit codes as Hydra's JobReturns."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from hydra.core.utils import JobReturn

from hydra_plugins.diffexp_local_launcher._display import Display
from hydra_plugins.diffexp_local_launcher._jobs import JobError, Run, Sweep, plan, sweep_folder
from hydra_plugins.diffexp_local_launcher._processes import Job, StoppedError, run_all
from hydra_plugins.diffexp_local_launcher._returned import CALLBACK, FILE, read_returned
from hydra_plugins.diffexp_local_launcher._slots import cpu_slots, gpu_slots, usable_cpus, visible_gpus
from hydra_plugins.diffexp_local_launcher._sweep_log import say

_STAGGER = 1.0  # seconds, with GPUs: not all jobs read the libraries and start CUDA in the same moment


class LocalSweep(Sweep, Protocol):
    """The settings of `LocalLauncher`, explained there."""

    gpus: list[str] | None
    jobs_per_gpu: int
    jobs: int | None
    stagger: float | None
    fail_fast: bool


def launch(sweep: LocalSweep, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run a batch of jobs, each in a slot of this machine, and print when each starts and ends.

    Args:
        sweep: The launcher.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The program cannot be started again as it was, or the folder of the slots is another user's.
        KeyboardInterrupt, SystemExit: A signal stopped the jobs.
    """
    outcomes, runs = plan(sweep, job_overrides, first)
    if runs:
        with TemporaryDirectory(prefix="returned-") as returned:
            _run(sweep, runs, Path(returned))
    return outcomes


def _run(sweep: LocalSweep, runs: Sequence[Run], returned: Path) -> None:
    logs = sweep_folder(sweep) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    gpus = visible_gpus() if sweep.gpus is None else sweep.gpus
    slots = gpu_slots(gpus, sweep.jobs_per_gpu) if gpus else cpu_slots(sweep.jobs or len(usable_cpus()))
    at_a_time = min(sweep.jobs or len(slots), len(slots))
    stagger = sweep.stagger if sweep.stagger is not None else _STAGGER if gpus else 0.0
    # Set before a job's first import, for a library reads its number of threads once. By default every job would
    # start one thread for each core: many times slower than sharing the cores.
    shared = {"OMP_NUM_THREADS": str(max(1, len(usable_cpus()) // at_a_time)), "PYTHONUNBUFFERED": "1"}
    jobs = [
        Job(
            command=[*run.command, CALLBACK],
            folder=sweep.config.hydra.runtime.cwd,
            environment={**shared, **os.environ, FILE: f"{returned}/{run.number}", **run.environment},
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
            codes = run_all(jobs, slots, display, at_a_time, stagger, sweep.fail_fast)
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
