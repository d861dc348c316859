"""`diffexp plan`: what it prints before a study is what the study then does, and it changes nothing."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from quick import QUICK
from synthetic import change_record
from torch import Tensor, nn

from diffexp.cli.main import main
from diffexp.io.files import try_locked
from diffexp.io.progress import clock
from diffexp.report.format import scaled
from diffexp.training import workload

WORDS = (*QUICK, "logger=none", "study=s")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        workload, "seconds_per_step", partial(workload.seconds_per_step, seconds=0.05)
    )  # for time's sake


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the run that is trained with WORDS."""
    torch.set_default_dtype(torch.float32)
    root = tmp_path_factory.mktemp("one") / "runs"
    assert main(["train", *WORDS, "checkpoint.every_n_steps=2", f"root={root}"]) == 0
    return root


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


class Ticking(Convolutions):
    """A clock that every prediction of training moves on by 20 ms."""

    now: ClassVar[float] = 0.0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        Ticking.now += 0.02 * torch.is_grad_enabled()
        return super().forward(x_t, t)


def test_the_time_of_a_step_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "time", SimpleNamespace(perf_counter=lambda: Ticking.now))
    found = planned(capsys, f"network._target_={__name__}.Ticking")
    assert found["configurations"][0]["seconds_per_step"] == pytest.approx(0.02)
    assert found["total"]["seconds"] == found["runs"][0]["seconds"] == pytest.approx(4 * 0.02)


# What is there.


def test_every_state_is_reported_and_only_what_is_left_is_counted(
    tmp_path: Path, one_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("-m", "seed=0,1,2,3,4,5")

    def record(seed: int) -> Path:
        return next(tmp_path.glob(f"runs/s/*/seed={seed}/run.json"))

    shutil.copytree(one_run, tmp_path / "runs")
    for seed in (1, 2, 3, 4):
        shutil.copytree(record(0).parent, record(0).parents[1] / f"seed={seed}")
        change_record(record(seed), seed=seed)

    def ended(seed: int, status: str, images_seen: int) -> None:
        change_record(record(seed), status=status, images_seen=images_seen)
        metrics = record(seed).with_name("metrics.jsonl")
        lines = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join(line for line in lines if json.loads(line)["images_seen"] <= images_seen))

    ended(1, "diverged", 32)
    ended(2, "failed", 48)  # its last checkpoint is of 32
    ended(3, "running", 32)
    ended(4, "interrupted", 32)
    (record(4).parent / "checkpoints" / "last.ckpt").unlink()  # nothing to go on from
    with try_locked(record(3).parent):
        found = planned(capsys, *sweep)
    assert [(run["state"], run["progress"]) for run in found["runs"]] == [
        ("done", 1.0), ("diverged", 0.5), ("failed", 0.5), ("running", 0.5), ("interrupted", 0.0), ("not started", 0.0),
    ]  # fmt: skip
    assert found["states"] == dict.fromkeys(("not started", "interrupted", "done", "diverged", "failed", "running"), 1)
    assert [run["seconds"] > 0 for run in found["runs"]] == [False, False, True, False, True, True]
    total = found["total"]
    assert (total["runs"], total["images"]) == (3, 32 + 64 + 64)
    assert total["seconds"] == pytest.approx(sum(run["seconds"] for run in found["runs"]))
    again = planned(capsys, *sweep)  # the lock is free: stopped
    assert (again["runs"][3]["state"], again["runs"][3]["progress"]) == ("stopped", 0.5)
    longer = planned(capsys, "seed=0", "trainer.max_steps=8")
    assert (longer["runs"][0]["state"], longer["runs"][0]["progress"]) == ("not started", 0.5)
    output = table(capsys, *sweep)
    assert output.startswith("6 runs: 1 done, 1 diverged, 1 not started, 1 interrupted, 1 stopped, 1 failed\n")
    for state, progress, seed in (("failed", 50, 2), ("stopped", 50, 3), ("interrupted", 0, 4)):
        assert re.search(rf"^  {state} +{progress} %  runs/s/epsilon-.*/seed={seed}$", output, re.MULTILINE)


def test_json_and_table_agree(
    tmp_path: Path, one_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a given time of a step, for a timed one differs from one time to the next."""
    monkeypatch.setattr(workload, "seconds_per_step", lambda *_: 2.5)
    sweep = ("-m", "seed=0,1,2", "network.widths=[8],[16]")
    shutil.copytree(one_run, tmp_path / "runs")
    assert main(["train", *WORDS, "network.widths=[16]"]) == 0
    output, found = table(capsys, *sweep), planned(capsys, *sweep)
    total = found["total"]
    assert [cost["settings"] for cost in found["configurations"]] == ["network.widths=[8]", "network.widths=[16]"]
    for cost in found["configurations"]:
        line = rf"^ *tiny +digits +{re.escape(cost['settings'])} +16 +3 +{cost['parameters']:,} +"
        line += rf"{scaled(float(cost['flops_per_step'])).strip()} +2.5 +64 *$"
        assert re.search(line, output, re.MULTILINE)
        assert cost["runs"] == 3
    assert total["seconds"] == 4 * 4 * 2.5
    assert f"to do: 4 runs, 256 images, {scaled(total['flops'])}FLOPs, {clock(total['seconds'])} of training" in output


# What it leaves alone.


def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(capsys, "-m", "seed=0,1", "metric=classifier", "hydra/launcher=local", "logger=wandb")
    table(capsys, "experiment=quick", "metric=classifier")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path, one_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(one_run, tmp_path / "runs")
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
        ["metric=inception", "metric.features.inception.weights=nowhere.pth"],
        ["--resolve"],
    ],
)
def test_a_study_that_cannot_run_is_an_error_with_the_message_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    printed: dict[str, str] = {}
    for command in ("train", "plan"):
        assert main([command, *WORDS, *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        printed[command] = captured.err
    assert printed["plan"] == printed["train"].replace("diffexp train: error:", "diffexp plan: error:")
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_are_not_known_yet_cannot_be_planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["plan", *WORDS, "-m", f"hydra.sweeper._target_={__name__}.Search", "seed=0,1"]) == 2
    assert "chooses its jobs while it runs: they cannot be listed beforehand" in capsys.readouterr().err


def test_help_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("usage: diffexp plan [--json]")
    assert "\ntarget: " in output
