"""`hydra/launcher=slurm` and `srun diffexp train` on a real SLURM: kills are noticed, the same command completes.

`make slurm` runs this. It takes minutes, root's rights and SLURM's daemons, so `make test` passes over it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cluster import Cluster, cluster, missing_for_slurm

from diffexp.runs.study import read_study

if not os.environ.get("DIFFEXP_TEST_SLURM"):
    pytest.skip("`make slurm` runs the tests on a real SLURM", allow_module_level=True)
if reason := missing_for_slurm():
    pytest.skip(reason, allow_module_level=True)

MINE = """
from pathlib import Path
from diffexp.targets import V


class Fragile(V):
    def draw(self, schedule, t, x0, eps, xi):
        if not Path("mended").exists():
            raise RuntimeError("it is broken in training alone")
        return super().draw(schedule, t, x0, eps, xi)
"""
TARGETS = (
    "epsilon", "v", "x0", "score", "fragile", "scaled_noise", "step_noise", "unit_step_noise", "step_difference",
    "posterior_mean", "previous_sample", "edm",
)  # fmt: skip
KILLED, CANCELLED, SIGNALLED, REQUEUED, BROKEN, SLAIN = range(6)
SMALL = (
    "data=mixture", "logger=none", "metric=none", "trainer.max_steps=300", "training.batch_size=16",
    "checkpoint.every_n_steps=50", "validation.every=300", "validation.count=64", "sampling.grid=4", "sampler.steps=3",
    "network.widths=[8]", "network.attention=[false]", "network.layers=1", "network.groups=4", "root=runs", "study=s",
)  # fmt: skip
SWEEP = (
    "-m", "--config-dir=myconf", "hydra/launcher=slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.poll_s=1",
    "hydra.launcher.cpus_per_task=1", f"target={','.join(TARGETS)}", *SMALL,
)  # fmt: skip


@pytest.fixture
def slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "c", accounting=getattr(request, "param", False)) as here:
        yield here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myconf" / "target").mkdir(parents=True)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "myconf" / "target" / "fragile.yaml").write_text("_target_: mine.Fragile\n")
    return tmp_path


class Training:
    """`diffexp train ...` as a user would start it; what it prints goes to a file and to this test's output."""

    def __init__(self, here: Cluster, folder: Path, *words: str, before: tuple[str, ...] = ()) -> None:
        self.log = folder / f"output-{time.monotonic_ns()}.log"
        self.folder = folder
        environment = {**here.environment, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "diffexp", "train", *words],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def text(self) -> str:
        """What was printed up to now."""
        return self.log.read_text()

    def ended(self, seconds: float) -> int:
        """Waits for its end, at most so long, and returns its exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            print(self.text())
            for log in sorted(self.folder.glob("runs/s/.submitit/*log.out")):
                print(f"--- {log.name}\n{log.read_text()[-1500:]}")

    def until(self, holds: Callable[[], object], seconds: float = 120) -> None:
        """Waits until something holds, while the command runs."""
        end = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"it ended before\n{self.text()}"
            assert time.monotonic() < end, f"not within {seconds} s\n{self.text()}"
            time.sleep(0.05)


def states(folder: Path) -> dict[str, str]:
    return {run.name.partition("-")[0]: run.status for run in read_study(folder / "runs" / "s")}


def in_midst(folder: Path, number: int) -> bool:
    """Whether that run is training and has a checkpoint."""
    found = [run for run in read_study(folder / "runs" / "s") if run.name.startswith(f"{TARGETS[number]}-")]
    return any(run.status == "running" and (run.path / "checkpoints" / "last.ckpt").exists() for run in found)


def once(slurm: Cluster, *command: str) -> None:
    """Sends a signal. scancel repeats one that has long arrived, every 5 s, while SLURM calls a job in transition."""
    with suppress(subprocess.TimeoutExpired):
        slurm.ask(*command, seconds=2)


def pids(slurm: Cluster, job: str) -> list[int]:
    """The processes of the step that runs a job's command."""
    number = slurm.ask("squeue", "--noheader", f"--jobs={job}", "--format=%A").strip()
    rows = [line.split() for line in slurm.ask("scontrol", "listpids", number).splitlines()[1:]]
    return [int(pid) for pid, _, step, *_ in rows if step == "0" and int(pid) > 1]


@pytest.mark.parametrize("slurm", [False, True], ids=["without accounting", "with accounting"], indirect=True)
def test_a_sweep_survives_kills_and_requeues_and_completes_when_repeated(slurm: Cluster, folder: Path) -> None:
    began = time.monotonic()
    first = Training(slurm, folder, *SWEEP)
    first.until(lambda: "number" in first.text())
    job = re.search(r"number (\d+) of SLURM", first.text())
    assert job
    for number, how in (
        (KILLED, ["scancel", "--signal=KILL"]),
        (CANCELLED, ["scancel"]),
        (SIGNALLED, ["scancel", "--signal=USR2"]),  # as SLURM does when the time is nearly up
        (REQUEUED, ["scontrol", "requeue"]),  # as SLURM does to make room for another job
    ):
        first.until(lambda number=number: in_midst(folder, number))
        once(slurm, *how, f"{job[1]}_{number}")
    first.until(lambda: in_midst(folder, SLAIN))
    for pid in pids(slurm, f"{job[1]}_{SLAIN}"):  # as the kernel does where memory is short
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert first.ended(600) == 1
    text = first.text()
    ends = dict(re.findall(r"^#(\d+) (done|FAILED)", text, re.M))
    failed = {str(number) for number in (KILLED, CANCELLED, BROKEN, SLAIN)}
    assert ends == {str(number): "FAILED" if str(number) in failed else "done" for number in range(12)}
    assert "it is broken in training alone" in text
    assert f"#{SIGNALLED} was requeued" in text
    assert f"#{REQUEUED} was requeued" in text
    assert "4 of 12 jobs failed" in text
    assert "Error executing job with overrides" not in text
    for number in (SIGNALLED, REQUEUED):
        log = (folder / "runs" / "s" / ".submitit" / f"{job[1]}_{number}_0_log.out").read_text()
        assert "going on at step" in log
        assert log.count("$ ") == 2
    assert states(folder)[TARGETS[BROKEN]] == "failed"
    print(f"--- the first command took {time.monotonic() - began:.0f} s")

    (folder / "mended").touch()
    second = Training(slurm, folder, *SWEEP)
    assert second.ended(300) == 0
    assert second.text().count("skipped") == 8
    assert states(folder) == dict.fromkeys(TARGETS, "done")
    assert not slurm.ask("squeue", "--noheader", "--states=R,PD")
    print(f"--- both took {time.monotonic() - began:.0f} s")


def test_a_preempted_run_exits_is_requeued_and_resumes(slurm: Cluster, folder: Path) -> None:
    """It exits within the grace time, as it should; SLURM alone would take that for its end."""
    training = Training(slurm, folder, *SWEEP, "target=v")
    training.until(lambda: in_midst(folder, TARGETS.index("v")))
    slurm.ask("sbatch", "--partition=urgent", "--ntasks=2", f"--output={folder}/urgent", "--wrap", "echo urgent")
    assert training.ended(200) == 0
    assert (folder / "urgent").read_text() == "urgent\n"
    assert "#0 was requeued" in training.text()
    log = next((folder / "runs" / "s" / ".submitit").glob("*_log.out")).read_text()
    assert "received SIGTERM, and is requeued" in log
    assert "going on at step" in log
    assert states(folder) == {"v": "done"}


def test_a_job_that_can_never_start_is_reported_and_cancelled(slurm: Cluster, folder: Path) -> None:
    """The partition allows an hour."""
    training = Training(slurm, folder, *SWEEP, "hydra.launcher.timeout_min=600", "target=v,x0")
    assert training.ended(150) == 1
    assert training.text().count("FAILED (could not start: Partition") == 2
    assert not slurm.ask("squeue", "--noheader", "--states=R,PD")


def test_a_run_inside_srun_is_a_run(slurm: Cluster, folder: Path) -> None:
    """Not a rank, not a job that Lightning requeues; SIGTERM ends it as it does anywhere."""
    alone = Training(slurm, folder, *SMALL, before=("srun", "--ntasks=1"))
    alone.until(lambda: "job" in slurm.ask("squeue", "--noheader", "--format=job %i"))
    job = slurm.ask("squeue", "--noheader", "--format=%i").split()[0]
    alone.until(lambda: in_midst(folder, TARGETS.index("epsilon")))
    once(slurm, "scancel", "--signal=TERM", job)
    assert alone.ended(60) == 143
    assert states(folder) == {"epsilon": "interrupted"}
    again = Training(slurm, folder, *SMALL, before=("srun", "--ntasks=1"))
    assert again.ended(100) == 0
    assert "going on at step" in again.text()
    assert states(folder) == {"epsilon": "done"}
    assert "SLURM" not in again.text()
