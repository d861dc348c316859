"""Runs and sweeps that are killed, interrupted, preempted, starved of disk: all is told, nothing finished is lost."""

import fcntl
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
from chaos import SETTINGS, end_state
from chaos import main as chaos
from forked import Forked, diffexp
from pytorch_lightning.loggers import Logger
from synthetic import change_record
from torch import nn

from diffexp.cli.main import main
from diffexp.io.files import is_locked, try_locked, why_unwritable
from diffexp.runs.directory import RunDirectory
from diffexp.runs.liveness import beating, is_beating
from diffexp.runs.study import Run, read_study
from diffexp.training.callbacks import MetricsWriter
from diffexp.training.signals import Interrupted, interruptible
from diffexp.training.weights import BEST_METRIC, BestWeights, Weights


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def train(root: Path, *overrides: str) -> int:
    return main(["train", f"root={root}", *SETTINGS, *overrides])


def process(root: Path, *overrides: str) -> subprocess.Popen[str]:
    """The command in a process that starts from nothing."""
    words = ["train", f"root={root}", *SETTINGS, *overrides]
    return subprocess.Popen([sys.executable, "-m", "diffexp", *words], stdout=PIPE, stderr=PIPE, text=True)


def forked(root: Path, *overrides: str, file_size: int | None = None) -> Forked:
    """The command in a process that has no imports to make."""
    return diffexp("train", f"root={root}", *SETTINGS, *overrides, file_size=file_size)


def only_run(root: Path) -> Run:
    (run,) = read_study(root / "s")
    return run


def wait_for(condition: Any, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    torch.set_default_dtype(torch.float32)
    assert train(root) == 0
    return root


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of two short runs."""
    root = tmp_path_factory.mktemp("swept")
    torch.set_default_dtype(torch.float32)
    assert train(root, "-m", "seed=0,1", "trainer.max_steps=8") == 0
    return root


def test_runs_that_are_killed_end_where_an_undisturbed_one_ends() -> None:
    """Inside a checkpoint and inside a line of metrics; `make chaos` does many more."""
    words = ["--random", "0", "--inside", "1", "--calls", "checkpoint", "line", "--seed", "1"]
    with Forked(chaos, *words) as running:
        out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert "2 kills" in out
    assert out.count("resumed: equal bit for bit") == 2


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1), (signal.SIGINT, 130)]
)
def test_a_signal_saves_the_step_and_the_run_goes_on_from_exactly_there(tmp_path: Path, sent: int, code: int) -> None:
    endless = ["checkpoint.every_n_steps=1000000", "trainer.max_steps=1000000"]
    with forked(tmp_path / "parts", *endless) as running:
        metrics = wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))[0]
        wait_for(lambda: metrics.read_text().count("\n") > 3)
        asked = time.monotonic()
        running.send_signal(sent)
        out, err = running.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert f"was interrupted ({signal.Signals(sent).name}); the same command goes on from exactly there" in out
    parts = only_run(tmp_path / "parts")
    assert parts.status == "interrupted"
    step = torch.load(parts.path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step >= 10  # three lines: no periodic checkpoint could have had it
    more = ["checkpoint.every_n_steps=1000000", f"trainer.max_steps={step + 7}"]
    assert train(tmp_path / "parts", *more) == 0
    assert train(tmp_path / "whole", *more) == 0
    assert end_state(tmp_path / "parts") == end_state(tmp_path / "whole")


def test_a_signal_while_work_is_unsaved_waits_and_a_second_ctrl_c_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def training() -> None:
        with interruptible() as interruption:
            interruption.held = True
            signal.raise_signal(signal.SIGINT)
            seen.append(capfd.readouterr().err)
            try:
                signal.raise_signal(signal.SIGINT)
            except Interrupted as second:
                seen.append(f"at once: {second.at_once}")
                raise

    with pytest.raises(KeyboardInterrupt):
        training()
    assert "Ctrl-C again leaves at once" in seen[0]
    assert seen[1] == "at once: True"


def test_a_scheduler_that_repeats_itself_does_not_disturb_the_saving() -> None:
    saved: list[int] = []

    def training() -> None:
        with interruptible() as interruption:
            interruption.held = True
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
                signal.raise_signal(number)
            assert interruption.signal is not None
            saved.append(interruption.signal)
            raise Interrupted(interruption.signal)

    with pytest.raises(SystemExit) as end:
        training()
    assert saved == [signal.SIGUSR1]
    assert end.value.code == 128 + signal.SIGUSR1


def test_a_signal_is_handed_on_to_whoever_handled_it_before() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: got.append(number))
    try:
        with pytest.raises(SystemExit), interruptible():
            signal.raise_signal(signal.SIGUSR2)
        assert got == [signal.SIGUSR2]
        signal.raise_signal(signal.SIGUSR2)
        assert len(got) == 2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_run_that_is_extended_has_the_metrics_of_one_that_was_that_long_from_the_start(
    tmp_path: Path, whole: Path
) -> None:
    assert train(tmp_path, "trainer.max_steps=35") == 0
    assert train(tmp_path) == 0
    theirs, ours = end_state(whole), end_state(tmp_path)
    assert theirs == ours


def test_the_best_weights_are_those_of_the_lowest_validation_error_and_the_final_ones_the_last(whole: Path) -> None:
    run = only_run(whole)
    best, final = (Weights.read(run.path / f"checkpoints/{n}.safetensors", run.config) for n in ("best", "final"))
    errors = {line["images_seen"]: line[BEST_METRIC] for line in run.metrics() if BEST_METRIC in line}
    assert best.value == min(value for value in errors.values() if value is not None)
    assert errors[best.step * 16] == best.value
    assert (final.step, final.value) == (60, errors[960])
    averaged = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(averaged[f"ema.network.{key}"], value) for key, value in final.tensors.items())


def test_weights_get_no_better_by_being_measured_again(tmp_path: Path) -> None:
    path, network = tmp_path / "best.safetensors", nn.Linear(2, 2)
    for step, error in ((0, 3.0), (10, 1.0), (20, 2.0), (30, 1.0)):
        BestWeights(path, {"a": 1})(network, step, {BEST_METRIC: error})  # a new start each time
    assert (Weights.read(path, {"a": 1}).step, Weights.read(path, {"a": 1}).value) == (10, 1.0)


def test_weights_are_not_read_as_those_of_another_configuration(tmp_path: Path) -> None:
    path = tmp_path / "final.safetensors"
    Weights(nn.Linear(2, 2).state_dict(), 5, 1.0).save(path, {"target": {"_target_": "diffexp.targets.X0"}})
    with pytest.raises(ValueError, match=r"target\._target_: diffexp.targets.X0 there, diffexp.targets.Epsilon now"):
        Weights.read(path, {"target": {"_target_": "diffexp.targets.Epsilon"}})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as weights"):
        Weights.read(path, {})


SMALL = 20_000
"""Bytes of a file: enough for records and metrics, but for no checkpoint."""


def test_a_disk_that_takes_no_more_is_one_clear_line_and_loses_nothing(tmp_path: Path, whole: Path) -> None:
    with forked(tmp_path, file_size=SMALL) as running:
        _, err = running.communicate(timeout=90)
    assert running.returncode == 1
    assert "Traceback" not in err
    assert "(File too large). Nothing that was finished is lost" in err
    run = only_run(tmp_path)
    assert run.status == "failed"
    assert "File too large" in run.text("error")
    assert not list(tmp_path.rglob("*.part"))
    assert train(tmp_path) == 0
    assert end_state(tmp_path) == end_state(whole)


def test_a_root_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("here is something else")
    assert train(tmp_path / "file") == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/file is not a folder" in said
    assert "Set root=" in said
    assert why_unwritable(tmp_path / "not" / "yet" / "there") is None


BROKEN = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:2000]), "cannot be read as a checkpoint"),
    "of another format": (lambda path: rewritten(path, format=1), "another version of diffexp"),
    "of another network": (lambda path: renamed_weight(path), "another version of the network"),
}


def rewritten(path: Path, **changes: object) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["diffexp"].update(changes)
    torch.save(checkpoint, path)


def renamed_weight(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    name = next(iter(checkpoint["state_dict"]))
    checkpoint["state_dict"]["once.called.this"] = checkpoint["state_dict"].pop(name)
    torch.save(checkpoint, path)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_one_clear_line_in_a_sweep_that_goes_on(
    tmp_path: Path, swept: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    sweep = ["-m", "seed=0,1", "trainer.max_steps=16"]
    first, second = (run.path for run in read_study(tmp_path / "s"))
    breaking, words = BROKEN[how]
    breaking(first / "checkpoints/last.ckpt")
    capsys.readouterr()
    assert train(tmp_path, *sweep) == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "Error executing job" not in err  # Hydra's line, which says no more
    assert f"{first} failed: {first}/checkpoints/last.ckpt" in err
    assert words in err
    again = next(line for line in err.splitlines() if line.startswith("    again: "))
    assert "seed=0" in shlex.split(again)
    assert out.splitlines()[-1] == "1 done, 1 failed; the same command again continues with the rest"
    assert [Run.at(path).status for path in (first, second)] == ["failed", "done"]  # pyright: ignore
    (first / "checkpoints/last.ckpt").unlink()
    assert train(tmp_path, *sweep) == 0
    assert "2 done" in capsys.readouterr().out


def test_a_run_does_not_go_back(tmp_path: Path, swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be called done with the weights of another length."""
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    first = read_study(tmp_path / "s")[0].path
    change_record(first / "run.json", status="interrupted")
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    for command in ("train", "plan"):
        assert main([command, f"root={tmp_path}", *SETTINGS, "seed=0", "trainer.max_steps=7"]) == 2
        assert f"{first} has trained 8 steps already, and no run goes back" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    assert train(tmp_path, "-m", "seed=0,1", "trainer.max_steps=8") == 0
    assert train(tmp_path, "seed=0", "trainer.max_steps=7") == 0
    assert "it has seen 128 images, more than these 112" in capsys.readouterr().out


def test_curves_that_were_cut_short_are_told_and_stay_readable(
    tmp_path: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    metrics = read_study(tmp_path / "s")[0].path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:700])
    assert train(tmp_path, "seed=0", "trainer.max_steps=16") == 0
    assert f"{metrics} has lost " in capsys.readouterr().err
    seen = [json.loads(line)["images_seen"] for line in metrics.read_text().splitlines()]
    assert seen == sorted(seen)
    assert seen[-1] == 256


def test_a_record_that_cannot_be_read_is_told_until_it_is_moved_away(
    tmp_path: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    sweep = ["-m", "seed=0,1", "trainer.max_steps=8"]
    record = read_study(tmp_path / "s")[0].path / "run.json"
    record.write_text("{bad")
    assert train(tmp_path, *sweep) == 1
    out = capsys.readouterr().out
    assert f"unreadable   {record.parent}\n" in out
    assert out.splitlines()[-1] == "1 done, 1 unreadable"
    assert record.read_text() == "{bad"
    record.unlink()
    assert train(tmp_path, *sweep) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 done"


def test_a_logger_that_fails_is_told_no_more_and_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Logger):
        name = version = "failing"

        def log_metrics(self, metrics: object, step: int | None = None) -> None:
            raise ConnectionError("the server is gone")

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    directory = RunDirectory(tmp_path, "s", ("x0",), "0" * 8, 0)
    directory.open({"status": "running"}, {})
    journal = MetricsWriter(directory, [Failing()], lambda *_: None)
    for images_seen in (1, 2, 3):
        journal.write(images_seen, {"val/loss": 1.0})
    assert capsys.readouterr().err.count("Failing failed and is left out from here on") == 1
    assert len(directory.metrics_file.read_text().splitlines()) == 3


def test_a_heart_beats_while_it_is_watched_and_not_after(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    assert not is_beating(path, patience=0.1)
    with beating(path, every=0.05):
        assert is_beating(path, patience=5.0)
    assert path.exists()
    assert not is_beating(path, patience=0.3)


def test_a_heart_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    with beating(tmp_path / "no" / "such" / "folder" / "heartbeat", every=0.01):
        time.sleep(0.05)


@pytest.fixture
def heart_of_another_machine(tmp_path: Path, swept: Path) -> Iterator[Path]:
    """A run's directory whose record names another machine, and in which a heart beats."""
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    directory = read_study(tmp_path / "s")[0].path
    record = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**record, "status": "running", "host": "elsewhere"}))
    with beating(directory / "heartbeat", every=0.1):
        yield directory


def test_a_run_that_lives_on_another_machine_is_left_to_it_even_where_locks_do_not_reach(
    tmp_path: Path, heart_of_another_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    assert "is already being trained by another process" in capsys.readouterr().out
    assert json.loads((heart_of_another_machine / "run.json").read_text())["status"] == "running"


def test_who_trains_a_run_is_in_its_directory(swept: Path) -> None:
    run = read_study(swept / "s")[0]
    assert run.record["host"] == platform.node()
    assert run.record["pid"] == os.getpid()


def test_looking_at_a_lock_neither_takes_nor_leaves_one(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "run")
    assert not list(tmp_path.iterdir())
    with try_locked(tmp_path / "run") as mine:
        assert mine
        assert is_locked(tmp_path / "run")
    assert not is_locked(tmp_path / "run")


def test_a_lock_is_had_although_somebody_looks_at_it_just_now(tmp_path: Path) -> None:
    with try_locked(tmp_path / "run"):
        pass
    looking = (tmp_path / "run.lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` does, but for longer
    threading.Timer(0.05, looking.close).start()
    with try_locked(tmp_path / "run") as mine:
        assert mine


def test_a_killed_job_of_a_sweep_is_told_and_the_same_command_finishes_it(tmp_path: Path) -> None:
    sweep = ["-m", "seed=0,1", "hydra/launcher=local", "hydra.launcher.jobs=2"]
    with process(tmp_path, *sweep) as running:
        victim = wait_for(lambda: [f for f in tmp_path.glob("s/*/seed=1/run.json") if f.exists()])[0]
        pid = json.loads(victim.read_text())["pid"]
        wait_for(lambda: (victim.parent / "metrics.jsonl").exists())
        os.kill(pid, signal.SIGKILL)
        out, _ = running.communicate(timeout=180)
    assert running.returncode == 1
    assert "#1 KILLED (signal 9)" in out
    assert f"stopped      {victim.parent}\n" in out
    assert "its process was killed" in out
    assert out.splitlines()[-1] == "1 done, 1 stopped; the same command again continues with the rest"
    with process(tmp_path, *sweep) as running:
        out, err = running.communicate(timeout=180)
    assert running.returncode == 0, err
    assert out.count("skipped") == 1
    assert out.splitlines()[-1] == "2 done"
