"""One launch: a sweep's jobs as one array of SLURM jobs, and their ends as Hydra's JobReturns."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hydra.core.utils import JobReturn

from hydra_plugins.diffexp_local_launcher._jobs import JobError, Run, Sweep, finished, plan, sweep_folder
from hydra_plugins.diffexp_local_launcher._sweep_log import SweepLog, say
from hydra_plugins.diffexp_slurm_launcher._queue import ENDED, NEVER, ControllerError, State, cancel, states, watched

_EVERY = 60.0  # seconds between two lines about jobs that wait
_GIVE_UP_AFTER = 60.0  # seconds until a reason never to start is taken as final: a node may be on its way back

_FAILURES = {"COMPLETED": None, "FAILED": "exit code not 0"}  # other states are named in SLURM's words

# What submitit takes for every kind of cluster; the rest has the prefix slurm_.
_SHARED = {
    "name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "tasks_per_node", "stderr_to_stdout"
}  # fmt: skip


class SlurmSweep(Sweep, Protocol):
    """The settings of `SlurmLauncher`, explained there."""

    folder: str
    max_num_timeout: int
    poll_s: float
    resources: dict[str, Any]


def launch(sweep: SlurmSweep, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit a batch of jobs, wait for them, and print when each starts and ends.

    Args:
        sweep: The launcher.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The jobs cannot be submitted, or the controller no longer responds.
        KeyboardInterrupt, SystemExit: A signal ended the wait. The jobs go on.
    """
    outcomes, waiting = plan(sweep, job_overrides, first)
    if not waiting:
        return outcomes
    jobs = _submitted(sweep, waiting)
    job = jobs[0].job_id.partition("_")[0]
    logs = {str(each.job_id): Path(each.paths.stdout) for each in jobs}
    runs = dict(zip(logs, waiting, strict=True))
    say(f"{len(jobs)} jobs, number {job} of SLURM; what they print goes to {sweep_folder(sweep)}/.submitit")
    wait = _Wait(sweep, runs, logs)
    try:
        for now in watched(partial(states, job), sweep.poll_s):
            wait.update(now)
            if not wait.open:
                break
    except ControllerError as error:
        raise JobError(f"SLURM's controller does not respond: {error}\n{_going_on(job)}") from error
    except (KeyboardInterrupt, SystemExit):
        say(_going_on(job))
        raise
    failed = ", ".join(logs[each].name for each in wait.failed)
    for each, run in runs.items():
        text = f"{len(wait.failed)} of {len(runs)} jobs failed. What they printed is in {logs[each].parent}: {failed}"
        run.end(JobError(text) if each in wait.failed else None)
    return outcomes


def _going_on(job: str) -> str:
    return f"The jobs go on by themselves: `squeue --jobs={job}` shows them, `scancel {job}` ends them."


def _submitted(sweep: SlurmSweep, runs: Sequence[Run]) -> list[Any]:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from hydra_plugins.diffexp_slurm_launcher._command import Command

    folder = str(sweep.config.hydra.runtime.cwd)
    executor = submitit.AutoExecutor(cluster="slurm", folder=sweep.folder, slurm_max_num_timeout=sweep.max_num_timeout)
    resources = {key if key in _SHARED else f"slurm_{key}": value for key, value in sweep.resources.items()}
    try:
        executor.update_parameters(**resources)
        return executor.submit_array([Command(run.command, folder, run.environment) for run in runs])
    except (FailedJobError, FailedSubmissionError) as error:
        raise JobError(f"SLURM did not accept the jobs: {' '.join(str(error).split())}") from error


class _Wait:
    """Prints what changes between two queries of the controller.

    Attributes:
        open: The jobs that have not ended.
        failed: The jobs that have failed.
    """

    def __init__(self, sweep: SlurmSweep, runs: Mapping[str, Run], logs: Mapping[str, Path]) -> None:
        self.sweep, self.runs = sweep, runs
        self.open, self.failed = list(runs), list[str]()
        self._index = {job: index for index, job in enumerate(runs)}
        self._log = SweepLog(
            list(logs.values()),
            [run.number for run in runs.values()],
            [run.name for run in runs.values()],
            min(len(runs), int(sweep.resources.get("array_parallelism") or len(runs))),
        )
        self._stuck: dict[str, tuple[float, str]] = {}  # since when, and why
        self._printed = time.monotonic()

    def update(self, now: Mapping[str, State]) -> None:
        """Take the next states from the controller."""
        for job in list(self.open):
            self._update(job, now.get(job))
        for job in self.open:
            if (state := now.get(job)) and state.name == "PENDING" and state.reason in NEVER:
                since = self._stuck.get(job, (time.monotonic(), ""))[0]
                self._stuck[job] = since, state.reason
                if time.monotonic() - since > _GIVE_UP_AFTER:
                    cancel(job)  # the next query reports it
            else:
                self._stuck.pop(job, None)
        running = self._log.running
        waiting = Counter(now[job].reason for job in self.open if self._index[job] not in running and job in now)
        if waiting and time.monotonic() - self._printed > _EVERY:
            why = ", ".join(f"{count} waiting ({reason})" for reason, count in waiting.items())
            self._printed = time.monotonic()
            say(f"{len(running)} running, {why}")

    def _update(self, job: str, state: State | None) -> None:
        index, running = self._index[job], self._log.running
        ended = state is None or state.name in ENDED
        if index not in running and (ended or (state and state.name == "RUNNING")):
            self._printed = time.monotonic()
            self._log.started(index)
        if ended:
            self.open.remove(job)
            failure = self._failure(job, state)
            if failure:
                self.failed.append(job)
            self._printed = time.monotonic()
            self._log.ended(index, f"FAILED ({failure})" if failure else "done", time.monotonic() - running[index])
        elif index in running and state and state.name == "PENDING":
            del running[index]
            self._printed = time.monotonic()
            say(f"#{self.runs[job].number} was requeued: {self.runs[job].name}")

    def _failure(self, job: str, state: State | None) -> str | None:
        if job in self._stuck:
            return f"could not start: {self._stuck[job][1]}"
        if state is not None:
            return _FAILURES.get(state.name, state.name.lower().replace("_", " "))
        # The controller dropped it between two queries: only the application knows how it ended.
        return None if finished(self.sweep, self.runs[job].outcome) else "left the queue unfinished"
