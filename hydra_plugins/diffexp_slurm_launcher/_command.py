"""What submitit runs on a node: a command line as a process of its own, which can be requeued."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence

from submitit.core.job_environment import JobEnvironment
from submitit.helpers import DelayedSubmission

from hydra_plugins.diffexp_slurm_launcher._queue import requeue, states

_GRACE = 60.0  # seconds to save and exit; SLURM's signal comes `signal_delay_s` before the end, 120 by default


class Command:
    """A command that resumes where it was when it is started again.

    Attributes:
        words: The program and its arguments.
        folder: Where it runs.
        environment: Added to that of the job.
    """

    def __init__(self, words: Sequence[str], folder: str, environment: dict[str, str]) -> None:
        self.words, self.folder, self.environment = list(words), folder, environment
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the command.

        Raises:
            SystemExit: With its exit code, if that is not 0.
        """
        print(f"$ {shlex.join(self.words)}", flush=True)
        self._process = subprocess.Popen(
            self.words,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore_usr_signal,
        )
        while (code := self._process.poll()) is None:  # not wait(): a signal's handler polls, too
            time.sleep(0.2)
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            _requeue_if_preempted()
        if code:
            raise SystemExit(code if code > 0 else 128 - code)

    def checkpoint(self) -> DelayedSubmission:
        """Make the command save and exit, wait until it has, and return what to run after the requeue."""
        if self._process is not None:
            self._process.terminate()
            end = time.monotonic() + _GRACE
            while self._process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            self._process.kill()
        return DelayedSubmission(Command(self.words, self.folder, self.environment))


def _requeue_if_preempted() -> None:
    # To SLURM, a job that exits within a preemption's grace time has ended, and would not be started again. The state
    # of a cancelled job is no longer RUNNING.
    job: str = JobEnvironment().job_id
    now = states(job)
    if not isinstance(now, str) and job in now and now[job].name == "RUNNING":
        print(f"job {job} received SIGTERM, and is requeued", flush=True)
        requeue(job)


def _ignore_usr_signal() -> None:
    # SLURM sends submitit's signal to every process of the job. This one receives SIGTERM from `checkpoint`.
    signal.signal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"), signal.SIG_IGN)
