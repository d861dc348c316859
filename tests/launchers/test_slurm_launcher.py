"""`hydra/launcher=slurm` without a SLURM: how it reads the controller's answers. `make slurm` runs a real one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

pytest.importorskip("submitit")

from hydra_plugins.diffexp_local_launcher._jobs import Run
from hydra_plugins.diffexp_slurm_launcher import _launch
from hydra_plugins.diffexp_slurm_launcher._command import Command
from hydra_plugins.diffexp_slurm_launcher._launch import _Wait
from hydra_plugins.diffexp_slurm_launcher._queue import ControllerError, State, states, watched
from hydra_plugins.diffexp_slurm_launcher.slurm_launcher import SlurmLauncher

SQUEUE = """#!/bin/sh
echo "$@" >> {folder}/asked
cat {folder}/answer
cat {folder}/error >&2
exit $(cat {folder}/code)
"""


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that answer what the files beside them say."""
    for name in ("squeue", "scancel", "sbatch", "srun"):
        (tmp_path / name).write_text(SQUEUE.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    for name, text in (("answer", ""), ("error", ""), ("code", "0")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def waiting(folder: Path, count: int, skip: str | None = None) -> _Wait:
    outcome = JobReturn(overrides=[], hydra_cfg=OmegaConf.create())
    runs = {f"7_{n}": Run(n, f"seed={n}", ["true"], {}, outcome) for n in range(count)}
    launcher: Any = SimpleNamespace(skip=skip, resources={})
    return _Wait(launcher, runs, {job: folder / f"{job}.log" for job in runs})


def is_done(cfg: object) -> str | None:
    return "it is done"


def test_the_controllers_answer_is_read_by_job(controller: Path) -> None:
    (controller / "answer").write_text("7_0|RUNNING|None\n7_1|PENDING|Resources\n")
    assert states("7") == {"7_0": State("RUNNING", "None"), "7_1": State("PENDING", "Resources")}
    assert "--jobs=7" in (controller / "asked").read_text()
    (controller / "code").write_text("1")
    (controller / "error").write_text("slurm_load_jobs error: Unable to contact slurm controller")
    assert states("7") == "slurm_load_jobs error: Unable to contact slurm controller"
    (controller / "answer").write_text("")
    (controller / "error").write_text("slurm_load_jobs error: Invalid job id specified")
    assert states("7") == {}  # all forgotten, long after their end


def test_a_silent_controller_is_given_up_and_a_short_silence_is_not() -> None:
    answers: list[Any] = ["away", {"7": State("RUNNING", "None")}, "away"]
    assert next(watched(lambda: answers.pop(0), every=0.0)) == {"7": State("RUNNING", "None")}
    with pytest.raises(ControllerError, match="away"):
        next(watched(lambda: "away", every=0.0, patience=-1.0))


def test_every_end_is_printed_and_a_requeued_job_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wait = waiting(tmp_path, 4)
    (tmp_path / "7_1.log").write_text("Traceback\nRuntimeError: no\nsrun: error: task 0: Exited with exit code 1\n")
    run, wait_for, end = State("RUNNING", "None"), State("PENDING", "BeginTime"), State("COMPLETED", "None")
    wait.update({"7_0": run, "7_1": run, "7_2": run, "7_3": wait_for})
    wait.update({"7_0": end, "7_1": State("FAILED", "NonZeroExitCode"), "7_2": wait_for, "7_3": State("CANCELLED", "")})
    assert wait.open == ["7_2"]
    wait.update({"7_2": run})
    wait.update({"7_2": State("OUT_OF_MEMORY", "OutOfMemory")})
    assert (wait.open, wait.failed) == ([], ["7_1", "7_3", "7_2"])
    output = capsys.readouterr().out
    for line in ("#0 done in 0 s", "#1 FAILED (exit code not 0)", "\n    RuntimeError: no\n", "#2 was requeued: seed=2",
                 "#3 FAILED (cancelled)", "#2 FAILED (out of memory)"):  # fmt: skip
        assert line in output


@pytest.mark.parametrize(("skip", "failed"), [(None, ["7_0"]), (f"{__name__}.is_done", [])])
def test_of_a_job_that_the_controller_forgot_the_application_is_asked(
    tmp_path: Path, skip: str | None, failed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.set_config", lambda self, cfg: None)
    wait = waiting(tmp_path, 1, skip)
    wait.update({"7_0": State("RUNNING", "None")})
    wait.update({})
    assert (wait.open, wait.failed) == ([], failed)


def test_a_job_that_will_never_start_is_taken_back(
    controller: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_launch, "_GIVE_UP_AFTER", -1.0)
    wait = waiting(controller, 2)
    wait.update({"7_0": State("PENDING", "PartitionTimeLimit"), "7_1": State("PENDING", "Priority")})
    assert (controller / "asked").read_text() == "7_0\n"
    wait.update({"7_0": State("CANCELLED", ""), "7_1": State("PENDING", "Priority")})
    assert (wait.open, wait.failed) == (["7_1"], ["7_0"])
    assert "#0 FAILED (could not start: PartitionTimeLimit)" in capsys.readouterr().out


CHILD = """
import signal, sys, time
from pathlib import Path

def leave(number, frame):
    Path("saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, leave)
Path("ready").touch()
time.sleep(60)
"""

PARENT = """
import os, signal, sys, time
from pathlib import Path
from hydra_plugins.diffexp_slurm_launcher._command import Command

command = Command([sys.executable, "-c", {child!r}], ".", {{}})

def signalled(number, frame):
    Path("again").write_text(" ".join(command.checkpoint().function.words[:1]))
    sys.exit(0)

signal.signal(signal.SIGUSR2, signalled)
command()
"""


def test_the_signal_of_slurm_lets_the_command_save_before_it_is_requeued(tmp_path: Path) -> None:
    """The signal reaches every process of the job; the command itself must not die of it."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(child=CHILD)], cwd=tmp_path, process_group=0)
    end = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGUSR2)
    assert parent.wait(30) == 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "again").read_text() == sys.executable


def test_a_job_ends_with_the_exit_code_of_its_command(tmp_path: Path) -> None:
    for code, words in ((3, "raise SystemExit(3)"), (137, "import os; os.kill(os.getpid(), 9)")):
        with pytest.raises(SystemExit) as end:
            Command([sys.executable, "-c", words], str(tmp_path), {})()
        assert end.value.code == code
    Command(
        [sys.executable, "-c", "import os; open('x', 'w').write(os.environ['MARK'])"], str(tmp_path), {"MARK": "m"}
    )()
    assert (tmp_path / "x").read_text() == "m"


def test_without_a_cluster_it_says_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="hydra/launcher=local"):
        SlurmLauncher(submitit_folder="x")
