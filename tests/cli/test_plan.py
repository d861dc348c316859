"""`diffexp plan`: what it says before a study is what the study then does, and it touches nothing."""

import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from synthetic import change_record, write_run
from test_train import QUICK
from torch import Tensor, nn

from diffexp.cli import workload
from diffexp.cli.main import main
from diffexp.cli.plan_table import scaled
from diffexp.cli.plans import Cost, Job, Plan
from diffexp.cli.precedents import Precedents, work
from diffexp.io.files import try_locked
from diffexp.io.jsonio import strict_json
from diffexp.io.progress import clock
from diffexp.runs.study import read_study

WORDS = (*QUICK, "logger=none", "study=s")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(workload, "measured_speed", partial(workload.measured_speed, seconds=0.05))  # for time's sake


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", "--json", *WORDS, *words]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def table(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["plan", *WORDS, *words]) == 0
    return capsys.readouterr().out


# What is counted.


class Convolutions(nn.Module):
    """Two convolutions of 3 x 3, from 1 channel to 4 and back."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.there, self.back = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.back(self.there(x_t))


class Attention(nn.Module):
    """Every pixel is a token of 4 numbers, and attends to every other."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.ones(4))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        tokens = x_t.flatten(2).unsqueeze(-1) * self.embedding
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean(-1).reshape(x_t.shape)


class Counting(Convolutions):
    """Counts the images that it is asked about without gradient."""

    asked: ClassVar[list[int]] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.asked.append(len(x_t))
        return super().forward(x_t, t)


@pytest.mark.parametrize(
    ("network", "parameters", "flops"),
    [
        # Forward 2 x (2 x 9 x 4) a pixel; back the same for the weights of both, and for the second one's input.
        ("Convolutions", 9 * 4 + 4 + 9 * 4 + 1, 64 * (2 * 72 + 2 * 72 + 72)),
        # Forward q k' and (weights) v, 2 x 64 x 64 x 4 each; back two such products for each.
        ("Attention", 4, 6 * (2 * 64 * 64 * 4)),
    ],
)
def test_flops_of_a_step_are_those_counted_by_hand(
    capsys: pytest.CaptureFixture[str], network: str, parameters: int, flops: int
) -> None:
    for batch in (1, 16):
        found = planned(capsys, f"network._target_={__name__}.{network}", f"training.batch_size={batch}")
        assert found["configurations"][0]["parameters"] == parameters
        assert found["configurations"][0]["flops_per_step"] == flops * batch
        assert found["total"]["flops"] == 4 * flops * batch


@pytest.mark.parametrize(
    "words",
    [
        ("validation.every=2",),
        ("validation.every=3", "validation.bound=null", "sampler=heun", "sampler.steps=4"),
        ("trainer.max_steps=5", "sampling.every=2", "sampling.clip=false"),
        ("metric=classifier", "metric.count=70"),
    ],
)
def test_the_network_is_asked_about_as_many_images_as_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> None:
    """The time of validation and sampling rests on that number."""
    counted: list[workload.Workload] = []
    original = workload.workload

    def keep(*args: Any) -> workload.Workload:
        counted.append(original(*args))
        return counted[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "workload", keep)
        planned(capsys, *words, f"network._target_={__name__}.Counting")
    Counting.asked.clear()
    assert main(["train", *WORDS, *words, f"network._target_={__name__}.Counting"]) == 0
    assert sum(Counting.asked) == counted[0].validated + counted[0].sampled


# What is known from finished runs.


def test_what_finished_runs_took_is_what_another_will_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *WORDS, "seed=0,1", "target=v,x0"]) == 0
    before = planned(capsys, "seed=2", "study=another")  # of another study and another target
    (cost,) = before["configurations"]
    runs = read_study(tmp_path / "runs" / "s")
    paces, after = list[float](), list[float]()
    for run in runs:
        assert cost["parameters"] == run.record["parameters"]
        elapsed = [line["time/elapsed"] for line in run.metrics() if line.get("time/elapsed")]
        assert elapsed[-1]
        paces.append(elapsed[-1] / 64)
        whole = datetime.fromisoformat(run.record["updated"]) - datetime.fromisoformat(run.record["created"])
        after.append(max(0.0, whole.total_seconds() - elapsed[-1]))
    assert cost["timed"] == cost["sized"] == "4 finished"
    assert cost["seconds_per_run"] == pytest.approx(64 * median(paces) + min(after), rel=1e-9)

    def size(folder: str) -> list[int]:
        return [sum(file.stat().st_size for file in (run.path / folder).iterdir()) for run in runs]

    assert cost["bytes_per_run"]["checkpoints"] == sum(size("checkpoints")) / 4
    assert cost["bytes_per_run"]["samples"] == sum(size("samples")) / 4
    longer = planned(capsys, "trainer.max_steps=40", "study=another")["configurations"][0]
    assert longer["seconds_per_run"] == pytest.approx(640 * median(paces) + min(after), rel=1e-9)
    for other in ("training.batch_size=8", "network.widths=[16]", "validation.count=32", "sampler.steps=2"):
        assert "timed" in planned(capsys, other)["configurations"][0]["timed"], other


def test_estimated_checkpoints_are_near_real_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("network.widths=[16,32]", "network.attention=[false,true]")
    said = planned(capsys, *words)["configurations"][0]
    assert main(["train", *WORDS, *words]) == 0
    real = planned(capsys, *words, "seed=1")["configurations"][0]
    assert (said["sized"], real["sized"]) == ("estimated", "1 finished")
    for part, tolerance in (("checkpoints", 0.1), ("samples", 0.5), ("metrics", 0.5)):
        assert said["bytes_per_run"][part] == pytest.approx(real["bytes_per_run"][part], rel=tolerance), part


def test_the_clock_of_a_resumed_run_counts_all_its_starts(tmp_path: Path) -> None:
    """10 s for 100 images, then, begun anew, 4 s for 50 more."""
    directory = write_run(tmp_path, "s", "v", 0, lines=0, validations=0, images_seen=150, device="cpu", precision="32")
    clocks = [(50, 4.0), (100, 10.0), (120, 1.0), (150, 4.0)]
    directory.metrics_file.write_text(
        "".join(f"{strict_json({'images_seen': seen, 'time/elapsed': s})}\n" for seen, s in clocks)
    )
    (run,) = read_study(tmp_path / "s")
    found = Precedents(tmp_path).of(work(run.config), "cpu", "32")
    assert found
    assert found.seconds_per_image == 14 / 150
    assert Precedents(tmp_path).of(work(run.config), "NVIDIA H200", "32") is None
    assert Precedents(tmp_path).of(work(run.config), "cpu", "bf16") is None
    change_record(directory.record_file, host="another processor")
    assert Precedents(tmp_path).of(work(run.config), "cpu", "32") is None


# What is there.


def test_every_state_is_told_and_only_what_is_left_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("-m", "seed=0,1,2,3,4,5")
    assert main(["train", "-m", *WORDS, "seed=0,1,2,3,4", "checkpoint.every_n_steps=2"]) == 0

    def record(seed: int) -> Path:
        return next(tmp_path.glob(f"runs/s/*/seed={seed}/run.json"))

    change_record(record(1), status="diverged", images_seen=32)
    change_record(record(2), status="failed", images_seen=48, error="why")  # since its last checkpoint, at 32
    change_record(record(3), status="running", images_seen=32)
    change_record(record(4), status="interrupted", images_seen=32)
    (record(4).parent / "checkpoints" / "last.ckpt").unlink()  # nothing to go on from
    with try_locked(record(3).parent):
        found = planned(capsys, *sweep)
    assert [(run["state"], run["progress"]) for run in found["runs"]] == [
        ("done", 1.0), ("diverged", 0.5), ("failed", 0.5), ("running", 0.5), ("resumable", 0.0), ("new", 0.0),
    ]  # fmt: skip
    assert found["states"] == dict.fromkeys(("new", "resumable", "done", "diverged", "failed", "running"), 1)
    assert [run["seconds"] > 0 for run in found["runs"]] == [False, False, True, False, True, True]
    total = found["total"]
    assert (total["runs"], total["images"]) == (3, 32 + 64 + 64)
    assert total["seconds"] == pytest.approx(sum(run["seconds"] for run in found["runs"]))
    again = planned(capsys, *sweep)  # the lock is free: stopped
    assert (again["runs"][3]["state"], again["runs"][3]["progress"]) == ("resumable", 0.5)
    longer = planned(capsys, "seed=0", "trainer.max_steps=8")
    assert (longer["runs"][0]["state"], longer["runs"][0]["progress"]) == ("resumable", 0.5)
    said = table(capsys, *sweep)
    assert said.startswith("6 runs: 1 new, 2 resumable, 1 done, 1 diverged, 1 failed\n")
    for state, progress, seed in (("failed", 50, 2), ("resumable", 50, 3), ("resumable", 0, 4)):
        assert re.search(rf"^  {state} +{progress} %  runs/s/epsilon-.*/seed={seed}$", said, re.MULTILINE)


def test_json_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    """From finished runs, for what is timed now differs from one time to the next."""
    assert main(["train", "-m", *WORDS, "seed=0", "sampler.steps=2,3"]) == 0
    sweep = ("-m", "seed=0,1,2", "sampler.steps=2,3", "hydra/launcher=local", "hydra.launcher.jobs=3")
    said, found = table(capsys, *sweep), planned(capsys, *sweep)
    total = found["total"]
    assert [cost["settings"] for cost in found["configurations"]] == ["sampler.steps=2", "sampler.steps=3"]
    for cost in found["configurations"]:
        line = rf"^tiny +digits +16 +3 +{cost['parameters']:,} +{scaled(float(cost['flops_per_step'])).strip()}"
        line += rf" +64 +{clock(cost['seconds_per_run'])} +1 finished\n  {cost['settings']}$"
        assert re.search(line, said, re.MULTILINE)
        assert cost["runs"] == 3
    assert f"to do: 4 runs, 256 images, {scaled(total['flops'])}FLOPs, {clock(total['seconds'])} of cpu" in said
    assert f"about {clock(total['wall_seconds'])} with 3 jobs at a time (local)" in said
    assert f"disk: {scaled(sum(total['bytes'].values()))}B for all runs" in said
    assert (found["launcher"], found["jobs_at_a_time"]) == ("local", 3)


def test_the_wall_clock_is_that_of_the_launchers_slots() -> None:
    """Two at a time: 5 | 1 2 | then 3 on the second slot, which is free at 3; it ends at 6."""
    cost = Cost("n", "d", 1, 10, 1, 1, "cpu", 0.0, 0.0, "", {"checkpoints": 7.0}, "", {})
    costs = [dataclasses.replace(cost, seconds_per_image=seconds / 10) for seconds in (5.0, 1.0, 2.0, 3.0)]
    plan = Plan([Job(str(n), "new", 0.0, n) for n in range(4)], costs, "local", 2)
    assert plan.totals() | {"flops": 0} == {
        "runs": 4, "images": 40.0, "flops": 0, "seconds": 11.0, "wall_seconds": 6.0, "bytes": {"checkpoints": 28.0},
    }  # fmt: skip
    plan.at_a_time = 1
    assert plan.wall_seconds() == 11.0
    plan.jobs = [Job("0", "done", 10.0, 0), Job("1", "resumable", 5.0, 3)]
    assert plan.totals()["seconds"] == plan.wall_seconds() == 1.5


# What it leaves alone.


def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(capsys, "-m", "seed=0,1", "metric=classifier", "hydra/launcher=local", "logger=wandb")
    table(capsys, "experiment=quick", "metric=classifier")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *WORDS]) == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    planned(capsys, "-m", "seed=0,1", "trainer.max_steps=8")
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}


def test_a_repeated_job_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(planned(capsys, "-m", "seed=0,0,1")["runs"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["target=nope"],
        ["-m", "target=epsilon,v,nope", "seed=0,1"],
        ["schedule=linear_beta", "target=flow"],
        ["trainer.max_step=3"],
        ["study=a/b"],
        ["trainer.accelerator=tpu"],
        ["metric=classifier", "data=gaussian"],
        ["metric=inception", "metric.features.weights=nowhere.pth"],
        ["--resolve"],
    ],
)
def test_a_study_that_cannot_run_is_refused_in_the_words_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    told: dict[str, str] = {}
    for command in ("train", "plan"):
        assert main([command, *WORDS, *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        told[command] = captured.err
    assert told["plan"] == told["train"].replace("diffexp train: error:", "diffexp plan: error:")
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_nobody_knows_yet_cannot_be_planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["plan", *WORDS, "-m", f"hydra.sweeper._target_={__name__}.Search", "seed=0,1"]) == 2
    assert "chooses its jobs while it runs: they cannot be listed beforehand" in capsys.readouterr().err


def test_help_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: diffexp plan [--json]")
    assert "\ntarget: " in said
