"""One run in two processes, started by torchrun: the run that one process trains, and one run's files."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchrun
from forked import Forked
from hydra.types import RunMode
from omegaconf import OmegaConf

from diffexp.cli.main import main
from diffexp.cli.schema import validate_processes
from diffexp.runs.study import Run, read_study
from diffexp.training.distributed import World

BATCH = 8
SETTINGS = (
    "study=s",
    "logger=none",
    "data=mixture",
    "target=step_noise",  # has label noise, so all four streams are used
    "network._target_=witness.Witness",
    "metric=none",
    "trainer.max_steps=6",
    "trainer.accelerator=cpu",
    "trainer.gradient_clip_val=0.05",  # below the norm of every gradient
    f"training.batch_size={BATCH}",
    "training.log_every=1",
    "training.warmup_steps=1",
    "training.ema_decay=0.9",
    "validation.every=3",
    "validation.count=64",
    "sampling.grid=4",
    "sampler.steps=3",
    "optimizer.lr=0.05",
)
# What a process opens for writing, makes, renames or removes, one path a line in $WITNESS/<rank>.written.
AUDIT = """
import os, sys
notes = open(os.path.join(os.environ["WITNESS"], os.environ.get("RANK", "agent") + ".written"), "a", buffering=1)
def note(event, args):
    if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate") and isinstance(args[0], str):
        notes.write(args[0] + "\\n")
sys.addaudithook(note)
"""


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def words(root: Path, *overrides: str) -> list[str]:
    return ["train", f"root={root}", *SETTINGS, *overrides]


def alone(root: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run in this process."""
    root.mkdir(exist_ok=True)
    monkeypatch.setenv("WITNESS", str(root))
    assert main(words(root, *overrides)) == 0
    return only_run(root)


def start(root: Path, *overrides: str, program: Callable[[], int] = torchrun.run, **environment: str) -> Forked:
    """The command in two processes, whose output goes to files below root/output."""
    root.mkdir(exist_ok=True)
    (root / "sitecustomize.py").write_text(AUDIT)
    path = os.pathsep.join([str(root), str(Path(__file__).parents[1] / "support")])
    environment = {"PYTHONPATH": path, "WITNESS": str(root), "OMP_NUM_THREADS": "1", **environment}
    options = ["--standalone", "--nproc-per-node=2", "--redirects=3", f"--log-dir={root / 'output'}"]
    return Forked(program, *options, "-m", "diffexp", *words(root, *overrides), **environment)


def end(process: Forked) -> int:
    with process:
        return process.wait(timeout=90)


def printed(root: Path, rank: int) -> str:
    return "".join(file.read_text() for file in sorted((root / "output").rglob(f"{rank}/std*.log")))


def only_run(root: Path) -> Run:
    (run,) = read_study(root / "s")
    return run


def trained(run: Run) -> dict[str, Any]:
    return torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)


def weights_agree(one: Run, other: Run) -> None:
    """The network's, their average's and the optimiser's, after steps that have moved them."""
    here, there = trained(one), trained(other)
    assert here["global_step"] == there["global_step"]
    for key, weight in here["state_dict"].items():
        torch.testing.assert_close(weight, there["state_dict"][key], rtol=1e-5, atol=1e-6, msg=key)
    states = (each["optimizer_states"][0]["state"] for each in (here, there))
    for (number, ours), theirs in zip(next(states).items(), next(states).values(), strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-8, msg=f"{key} {number}")


def losses(run: Run) -> list[float]:
    return [value for line in run.metrics() if (value := line.get("train/loss")) is not None]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_default_dtype(torch.float32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        return alone(tmp_path_factory.mktemp("single"), monkeypatch=monkeypatch)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("double")
    assert end(start(root)) == 0, printed(root, 0)
    return only_run(root)


def root_of(run: Run) -> Path:
    return run.path.parents[2]


def test_two_processes_see_between_them_what_one_would(single: Run, double: Run) -> None:
    for step in range(6):
        with np.load(root_of(single) / f"0-{step}.npz") as whole:
            parts = [np.load(root_of(double) / f"{rank}-{step}.npz") for rank in (0, 1)]
            for key in ("x", "t"):
                assert [len(part[key]) for part in parts] == [BATCH // 2] * 2
                assert sorted(row.tobytes() for part in parts for row in part[key]) == sorted(
                    row.tobytes() for row in whole[key]
                )


def test_two_processes_log_the_loss_that_one_would(single: Run, double: Run) -> None:
    assert len(losses(single)) == 6
    assert losses(double) == pytest.approx(losses(single), rel=1e-6)
    assert double.final == pytest.approx(single.final, rel=1e-5)
    assert (single.record["processes"], double.record["processes"]) == (1, 2)
    assert double.record["config_hash"] == single.record["config_hash"]


def test_two_processes_learn_what_one_would_with_clipped_gradients(single: Run, double: Run) -> None:
    weights_agree(single, double)


def test_rank_0_alone_writes_and_prints(double: Run) -> None:
    ours, theirs = (
        [line for line in (root_of(double) / f"{rank}.written").read_text().splitlines() if str(double.path) in line]
        for rank in (0, 1)
    )
    assert str(double.path / "metrics.jsonl") in ours
    assert str(double.path / "checkpoints") in ours
    assert theirs == []
    assert "100 %" in printed(root_of(double), 0)
    assert printed(root_of(double), 1) == ""


def test_one_process_goes_on_where_two_have_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other process is always within its step when the signal comes, and must still finish it.
    slow = {"WITNESS_DAWDLES": "1"}
    process = start(tmp_path / "parts", "trainer.max_steps=100000", **slow)
    wait_for(tmp_path / "parts/1-2.npz", process)
    process.send_signal(signal.SIGTERM)
    end(process)
    stopped = only_run(tmp_path / "parts")
    assert stopped.status == "interrupted"
    assert "was interrupted (SIGTERM); the same command goes on from exactly there" in printed(tmp_path / "parts", 0)
    step = trained(stopped)["global_step"]
    assert step >= 3
    whole = alone(tmp_path / "whole", f"trainer.max_steps={step + 3}", monkeypatch=monkeypatch)
    parts = alone(tmp_path / "parts", f"trainer.max_steps={step + 3}", monkeypatch=monkeypatch)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    weights_agree(whole, parts)


def test_two_processes_go_on_where_one_has_stopped(
    single: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(tmp_path / "parts", "trainer.max_steps=3", monkeypatch=monkeypatch)
    assert end(start(tmp_path / "parts")) == 0, printed(tmp_path / "parts", 0)
    assert "going on at step 3" in printed(tmp_path / "parts", 0)
    assert losses(only_run(tmp_path / "parts")) == pytest.approx(losses(single), rel=1e-6)
    weights_agree(single, only_run(tmp_path / "parts"))


def test_a_process_that_fails_ends_the_other_and_the_run_says_why(tmp_path: Path) -> None:
    assert end(start(tmp_path, WITNESS_FAILS="1")) == 1
    run = only_run(tmp_path)
    assert run.record["status"] == "failed"
    assert run.record["error"] == "rank 1 of 2 processes failed: RuntimeError: the witness gives up"
    assert "in forward" in (run.path / "traceback.txt").read_text()


def test_a_sweep_in_two_processes_is_refused(tmp_path: Path) -> None:
    assert end(start(tmp_path, "-m", "seed=0,1", "training.batch_size=7", program=torchrun.run_forks)) == 1
    assert printed(tmp_path, 0).startswith("diffexp train: error: a sweep (-m) in 2 processes (WORLD_SIZE=2)")
    assert printed(tmp_path, 1) == ""
    assert not (tmp_path / "s").exists()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    cfg = OmegaConf.create({"training": {"batch_size": 128}})
    validate_processes(cfg, 4, RunMode.RUN)
    with pytest.raises(ValueError, match=r"training.batch_size=128 cannot be shared by 3 processes .* Take 126\."):
        validate_processes(cfg, 3, RunMode.RUN)


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environ() == World()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="Start several processes with torchrun, or unset WORLD_SIZE"):
        World.from_environ()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="without MASTER_ADDR and MASTER_PORT"):
        World.from_environ()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert World.from_environ() == World(rank=3, size=4, local_rank=1, local_size=2)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match="RANK=4 WORLD_SIZE=4"):
        World.from_environ()


def wait_for(file: Path, process: Forked) -> None:
    for _ in range(600):
        if file.exists() or process.poll() is not None:
            return
        time.sleep(0.1)
