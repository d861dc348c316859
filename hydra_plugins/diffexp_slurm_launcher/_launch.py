"""One launch: a sweep's commands as an array of jobs, and from what the controller says to Hydra's JobReturn."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn

from hydra_plugins.diffexp_local_launcher._jobs import JobError, Plan, Run, finished, plan
from hydra_plugins.diffexp_local_launcher._narrator import Narrator, say
from hydra_plugins.diffexp_slurm_launcher._queue import ENDED, NEVER, SilentError, State, cancel, states, watched

if TYPE_CHECKING:
    from hydra_plugins.diffexp_slurm_launcher.slurm_launcher import SlurmLauncher

_EVERY = 60.0  # seconds between two lines about jobs that wait
_HOPE = 60.0  # seconds until a reason never to start is believed: a node may be on its way back

_WORDS = {"COMPLETED": None, "FAILED": "exit code not 0"}

# What submitit knows for every kind of cluster; the rest it takes with the prefix slurm_.
_SHARED = {
    "name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "tasks_per_node", "stderr_to_stdout"
}  # fmt: skip


def launch(launcher: "SlurmLauncher", job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submits a batch of jobs and waits for them, saying when each starts and ends.

    Args:
        launcher: The sweep's settings.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The jobs cannot be submitted, or nothing is heard of them any more.
        KeyboardInterrupt, SystemExit: A signal ended the wait. The jobs go on.
    """
    planned = plan(launcher, job_overrides, first)
    if not planned.runs:
        return planned.outcomes
    jobs = _submitted(launcher, planned)
    job = jobs[0].job_id.partition("_")[0]
    logs = {str(each.job_id): Path(each.paths.stdout) for each in jobs}
    runs = dict(zip(logs, planned.runs, strict=True))
    say(f"{len(jobs)} jobs, number {job} of SLURM; what they print goes to {planned.folder}/.submitit")
    wait = _Wait(launcher, runs, logs)
    try:
        for now in watched(partial(states, job), launcher.poll_s):
            wait.hear(now)
            if not wait.open:
                break
    except SilentError as error:
        raise JobError(f"SLURM's controller does not answer: {error}\n{_going_on(job)}") from error
    except (KeyboardInterrupt, SystemExit):
        say(_going_on(job))
        raise
    failed = ", ".join(logs[each].name for each in wait.failed)
    for each, run in runs.items():
        text = f"{len(wait.failed)} of {len(runs)} jobs failed. What they printed is in {logs[each].parent}: {failed}"
        run.end(JobError(text) if each in wait.failed else None)
    return planned.outcomes


def _going_on(job: str) -> str:
    return f"The jobs go on by themselves: `squeue --jobs={job}` shows them, `scancel {job}` ends them."


def _submitted(launcher: "SlurmLauncher", planned: Plan) -> list[Any]:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from hydra_plugins.diffexp_slurm_launcher._command import Command

    folder = str(launcher.config.hydra.runtime.cwd)
    executor = submitit.AutoExecutor(
        cluster="slurm", folder=launcher.folder, slurm_max_num_timeout=launcher.max_num_timeout
    )
    resources = {key if key in _SHARED else f"slurm_{key}": value for key, value in launcher.resources.items()}
    try:
        executor.update_parameters(**resources)
        return executor.submit_array([Command(run.command, folder, run.environment) for run in planned.runs])
    except (FailedJobError, FailedSubmissionError) as error:
        raise JobError(f"SLURM did not take the jobs: {' '.join(str(error).split())}") from error


class _Wait:
    """Tells of each job what has changed since the last answer.

    Attributes:
        open: The jobs that have not ended.
        failed: Those that have, and not well.
    """

    def __init__(self, launcher: "SlurmLauncher", runs: Mapping[str, Run], logs: Mapping[str, Path]) -> None:
        self.launcher, self.runs = launcher, runs
        self.open, self.failed = list(runs), list[str]()
        self._index = {job: index for index, job in enumerate(runs)}
        self._narrator = Narrator(
            list(logs.values()),
            [run.number for run in runs.values()],
            [run.name for run in runs.values()],
            min(len(runs), int(launcher.resources.get("array_parallelism") or len(runs))),
        )
        self._started: dict[str, float] = {}
        self._stuck: dict[str, tuple[float, str]] = {}
        self._said = time.monotonic()

    def hear(self, now: Mapping[str, State]) -> None:
        """Takes the next answer of the controller."""
        for job in list(self.open):
            self._hear(job, now.get(job))
        for job in self.open:
            if (state := now.get(job)) and state.name == "PENDING" and state.reason in NEVER:
                since = self._stuck.get(job, (time.monotonic(), ""))[0]
                self._stuck[job] = since, state.reason
                if time.monotonic() - since > _HOPE:
                    cancel(job)  # the queue will say so
            else:
                self._stuck.pop(job, None)
        waiting = Counter(now[job].reason for job in self.open if job not in self._started and job in now)
        if waiting and time.monotonic() - self._said > _EVERY:
            why = ", ".join(f"{count} waiting ({reason})" for reason, count in waiting.items())
            self._say(f"{len(self._started)} running, {why}")

    def _hear(self, job: str, state: State | None) -> None:
        index = self._index[job]
        ended = state is None or state.name in ENDED
        if job not in self._started and (ended or (state and state.name == "RUNNING")):
            self._started[job] = time.monotonic()
            self._said = time.monotonic()
            self._narrator.started(index)
        if ended:
            self.open.remove(job)
            failure = self._failure(job, state)
            if failure:
                self.failed.append(job)
            seconds = time.monotonic() - self._started.pop(job)
            self._said = time.monotonic()
            self._narrator.ended(index, f"FAILED ({failure})" if failure else "done", seconds)
        elif job in self._started and state and state.name == "PENDING":
            del self._started[job]
            self._narrator.running.pop(index)
            self._say(f"#{self.runs[job].number} was requeued: {self.runs[job].name}")

    def _failure(self, job: str, state: State | None) -> str | None:
        if job in self._stuck:
            return f"could not start: {self._stuck[job][1]}"
        if state is not None:
            return _WORDS.get(state.name, state.name.lower().replace("_", " "))
        # The controller forgot it between two answers: only the application can tell how it ended.
        return None if finished(self.launcher, self.runs[job].outcome) else "left the queue unfinished"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        say(line)
