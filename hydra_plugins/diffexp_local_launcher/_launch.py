"""One launch: the commands of a sweep as processes of this machine, and from their exit codes to Hydra's JobReturn."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn

from hydra_plugins.diffexp_local_launcher._jobs import JobError, plan
from hydra_plugins.diffexp_local_launcher._narrator import Narrator, say
from hydra_plugins.diffexp_local_launcher._processes import Job, StoppedError, run_all

if TYPE_CHECKING:
    from hydra_plugins.diffexp_local_launcher.local_launcher import LocalLauncher


def launch(launcher: "LocalLauncher", job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Runs a batch of jobs, so many at a time, and says when each starts and ends.

    Args:
        launcher: The sweep's settings.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The program cannot be started again as it was.
        KeyboardInterrupt, SystemExit: A signal ended the jobs.
    """
    planned = plan(launcher, job_overrides, first)
    runs = planned.runs
    if not runs:
        return planned.outcomes
    logs = planned.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            command=run.command,
            folder=launcher.config.hydra.runtime.cwd,
            environment={**_shared(launcher), **os.environ, **run.environment},
            log=logs / f"{run.number}.log",
        )
        for run in runs
    ]
    numbers = [run.number for run in runs]
    narrator = Narrator([job.log for job in jobs], numbers, [run.name for run in runs], launcher.jobs)
    say(f"{len(jobs)} jobs, {min(launcher.jobs, len(jobs))} at a time; what they print goes to {logs}")

    def ended(index: int, code: int, seconds: float) -> None:
        state = "done" if code == 0 else f"FAILED (exit code {code})" if code > 0 else f"KILLED (signal {-code})"
        narrator.ended(index, state, seconds)

    try:
        codes = run_all(jobs, launcher.jobs, narrator.started, ended, launcher.fail_fast)
    except StoppedError as stopped:
        say(f"{stopped}: all jobs were ended; {narrator.done} of {len(jobs)} had finished")
        if str(stopped) == "SIGINT":
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signal) from None
    failed = [number for number, code in zip(numbers, codes, strict=True) if code]
    for run, code in zip(runs, codes, strict=True):
        named = ", ".join(f"{number}.log" for number in failed)
        text = f"{len(failed)} of {len(jobs)} jobs failed. What they printed is in {logs}: {named}"
        run.end(None if code == 0 else JobError(text))
    return planned.outcomes


def _shared(launcher: "LocalLauncher") -> dict[str, str]:
    """Set before the job's first import, for a library reads its number of threads once.

    Left alone, every job would start one thread for each core: many times slower than sharing the cores.
    """
    return {"OMP_NUM_THREADS": str(max(1, launcher.cores // launcher.jobs)), "PYTHONUNBUFFERED": "1"}
