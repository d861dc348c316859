"""The slots of `hydra/launcher=local`: what two sweeps on one machine share, and what a job sees of its GPU."""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_app import alive, command_line, environment, launched, launching, seen, sleepers, small_app

from hydra_plugins.diffexp_local_launcher._processes import Job, run_all
from hydra_plugins.diffexp_local_launcher._slots import Slot, cpu_slots, first_free, gpu_slots, visible_gpus
from hydra_plugins.diffexp_local_launcher.local_launcher import LocalLauncher

HOLDING = """
import sys, time
from pathlib import Path
from hydra_plugins.diffexp_local_launcher._slots import Slot, first_free
held = first_free([Slot("a", {})], Path(sys.argv[1]))
print(held is not None, flush=True)
time.sleep(60)
"""


def overlapping(jobs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The pairs of jobs that have run at the same time."""
    return [
        (one, other)
        for one, other in combinations(jobs, 2)
        if one["span"][0] < other["span"][1] and other["span"][0] < one["span"][1]
    ]


@pytest.mark.parametrize(
    "settings",
    [("hydra.launcher.gpus=[0,1]", "hydra.launcher.stagger=0"), ("hydra.launcher.gpus=[]", "hydra.launcher.jobs=1")],
    ids=["gpus", "cores"],
)
def test_two_sweeps_share_the_slots_of_their_machine(tmp_path: Path, settings: tuple[str, ...]) -> None:
    """No two jobs, of whatever sweep, have ever been on one GPU, or where there is but one slot, at all."""
    folders = [small_app(tmp_path / name) for name in ("one", "other")]
    sweeps = [launching(folder, "number=range(4)", "hold=0.2", *settings, meeting=tmp_path) for folder in folders]
    for sweep in sweeps:
        output = sweep.communicate(timeout=120)[0]
        assert sweep.returncode == 0, output
    jobs = [job for folder in folders for job in seen(folder)]
    assert len(jobs) == 8
    for one, other in overlapping(jobs):
        assert one["CUDA_VISIBLE_DEVICES"] != other["CUDA_VISIBLE_DEVICES"]


def test_jobs_that_share_gpus_see_each_the_one_of_its_slot(tmp_path: Path) -> None:
    """Four at once, or the first would wait for the last for ever."""
    settings = ("hydra.launcher.gpus=[0,GPU-8a]", "hydra.launcher.jobs_per_gpu=2", "hydra.launcher.stagger=0")
    done = launched(small_app(tmp_path), "number=range(4)", "wait_for=3", *settings)
    assert done.returncode == 0, done.stderr
    assert sorted(job["CUDA_VISIBLE_DEVICES"] for job in seen(tmp_path)) == ["0", "0", "GPU-8a", "GPU-8a"]
    assert "4 jobs, 4 at a time on GPU 0, GPU-8a;" in done.stdout
    assert sorted(re.findall(r"^#\d started on (.*): ", done.stdout, re.M)) == [
        "gpu 0", "gpu 0 (2)", "gpu GPU-8a", "gpu GPU-8a (2)"
    ]  # fmt: skip


def test_without_a_setting_the_gpus_are_those_that_cuda_would_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1f)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2e)'\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == ["0", "1"]
    for variable, gpus in {"": [], "2, 3": ["2", "3"], "1,-1,0": ["1"], "GPU-2e": ["GPU-2e"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
        assert visible_gpus() == gpus


def test_gpus_are_filled_one_by_one_before_any_is_shared() -> None:
    assert [slot.name for slot in gpu_slots(["0", "1"], per_gpu=2)] == ["gpu 0", "gpu 1", "gpu 0 (2)", "gpu 1 (2)"]


def test_sweeps_on_different_cores_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As two jobs of a cluster on one node."""
    names: list[set[str]] = []
    for cores in ({0, 1}, {2, 3}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: cores)
        names.append({slot.name for slot in cpu_slots(3)})
    assert [len(each) for each in names] == [3, 3]
    assert not names[0] & names[1]


def test_the_slot_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert first_free([Slot("a", {})], tmp_path) is None
        holder.kill()
        holder.wait()
        held = first_free([Slot("a", {})], tmp_path)
    assert held is not None
    assert first_free([Slot("a", {})], tmp_path) is None
    held.release()
    again = first_free([Slot("a", {})], tmp_path)
    assert again is not None
    again.release()


def test_a_job_that_outlives_its_sweep_keeps_its_slot(tmp_path: Path) -> None:
    """The next sweep says that it waits, and goes on when the job is gone."""
    first, second = (small_app(tmp_path / name) for name in ("first", "second"))
    one = ("hydra.launcher.jobs=1", "number=1")
    sweep = launching(first, "sleeper=true", *one, meeting=tmp_path)
    job, child = sleepers(first, jobs=1)
    sweep.kill()
    sweep.communicate()
    assert alive(job)
    waiting = launching(second, *one, meeting=tmp_path)
    assert waiting.stdout is not None
    assert "every slot of this machine (1 in all) is held by other sweeps: waiting for one\n" in waiting.stdout
    assert not (second / "ran").exists()
    os.kill(job, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    assert "#0 done" in waiting.communicate(timeout=60)[0]


def test_starts_are_staggered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three that could start at once, the last starts two intervals after the first."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    starts: list[float] = []
    display: Any = SimpleNamespace(
        started=lambda index, where: starts.append(time.monotonic()), exited=lambda *args: None
    )
    jobs = [Job(["true"], str(tmp_path), dict(os.environ), tmp_path / f"{n}.log") for n in range(3)]
    began = time.monotonic()
    assert run_all(jobs, [Slot(name, {}) for name in "abc"], display, at_a_time=3, stagger=0.3) == [0, 0, 0]
    assert starts[2] - began >= 0.6


def test_a_folder_of_another_user_is_an_error(tmp_path: Path) -> None:
    """In a folder that all may write to, its name is easily guessed."""
    folder = small_app(tmp_path)
    (folder / "theirs").mkdir()
    (folder / f"diffexp-slots-{os.getuid()}").symlink_to(folder / "theirs")
    done = subprocess.run(command_line("number=1"), cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not yours" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"jobs": 0}, {"jobs_per_gpu": 0}, {"stagger": -1.0}, {"stagger": float("nan")}, {"gpus": 0}, {"gpus": "0,1"},
        {"gpus": [0, 0]}, {"gpus": [-1]}, {"gpus": ["../x"]},
    ],
)  # fmt: skip
def test_invalid_settings_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^hydra\.launcher\.{name}="):
        LocalLauncher(**settings)
