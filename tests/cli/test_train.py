"""`diffexp train`, `sample` and `evaluate`, from the command line to the files and to what W&B keeps."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from quick import QUICK
from torch import Tensor, nn
from torch.optim import AdamW
from wandb_server import wandb_server

from diffexp.cli.main import main
from diffexp.io.files import try_locked
from diffexp.runs.study import Run, read_study
from diffexp.targets import V
from diffexp.training import loggers


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def train(root: Path, *overrides: str) -> int:
    return main(["train", f"root={root}", "study=s", *QUICK, "logger=none", *overrides])


def only_run(root: Path) -> Run:
    (run,) = read_study(root / "s")
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a study with one finished run, logged to W&B offline."""
    root = tmp_path_factory.mktemp("finished")
    assert train(root, "logger=wandb", "target=v", "objective.space=epsilon", "metric=classifier", "metric.count=60",
                 f"cache={root}/cache") == 0  # fmt: skip
    return root


def test_a_run_leaves_its_identity_its_numbers_and_its_pictures(finished: Path) -> None:
    run = only_run(finished)
    record = run.record
    assert (record["status"], record["target"], record["space"], record["data"]) == ("done", "v", "epsilon", "digits")
    assert record["images_seen"] == record["max_images"] == 64
    assert record["command"].startswith("diffexp train ")
    assert record["parameters"] > 1000
    assert record["t_min"] == 0.001
    assert record["clip"] is True
    assert run.name.startswith("v-epsilon-linear_beta-digits-")
    assert run.name.endswith(record["config_hash"])
    for name in ("samples/final.png", "samples/data.png", "checkpoints/last.ckpt", "config.json", "config.yaml"):
        assert (run.path / name).stat().st_size > 0
    lines = run.metrics()
    assert [line["images_seen"] for line in lines] == [0, 32, 64]
    assert all(lines[i]["train/loss"] is not None for i in (1, 2))
    assert {"val/belief_eps", "val/belief_x0/lam_2_4", "val/zero_loss"} <= lines[0].keys()
    assert lines[0]["val/loss"] == pytest.approx(lines[0]["val/zero_loss"])  # the last layer begins at zero
    assert {"fd/classifier_60", "fd/classifier_60/floor", "kid/classifier_60"} <= run.final.keys()
    assert run.final["val/loss"] == lines[2]["val/loss"]


def test_the_effective_weight_of_a_loss_paid_in_eps_is_flat(finished: Path) -> None:
    weight = only_run(finished).record["effective_weight"]
    assert weight["weight"] == pytest.approx([1.0] * len(weight["log_snr"]), rel=1e-6)


def test_a_finished_run_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = only_run(finished)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert main(shlex.split(run.record["command"])[1:]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}


def test_evaluating_a_run_again_finds_what_it_recorded(finished: Path, tmp_path: Path) -> None:
    run = only_run(finished)
    out = tmp_path / "again.json"
    assert main(["evaluate", f"run={run.path}", f"out={out}", "likelihood.count=0"]) == 0
    again = json.loads(out.read_text())
    assert again["step"] == 4
    assert again["metrics"] == pytest.approx(run.final, rel=1e-6)


def test_samples_drawn_later_are_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    run = only_run(finished)
    assert main(["sample", f"run={run.path}", f"out={tmp_path}/again.png", "count=4"]) == 0
    assert (tmp_path / "again.png").read_bytes() == (run.path / "samples/final.png").read_bytes()
    assert main(["sample", f"run={run.path}", f"out={tmp_path}/a.npz", "count=5", "sampler=ancestral",
                 "sampler.steps=7"]) == 0  # fmt: skip
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["images"].shape == (5, 1, 8, 8)
        assert file["images"].dtype == np.uint8


def test_what_wandb_keeps_offline_is_what_the_run_recorded(finished: Path) -> None:
    run = only_run(finished)
    (log,) = (finished / "s" / "wandb").glob("offline-run-*/*.wandb")
    records = leet(log)
    told = next(r["run"] for r in records if r["type"] == "run")
    assert told["run_group"] == "s"
    assert told["job_type"] == "v"
    assert told["run_id"] == f"s-{run.record['config_hash']}-0"
    assert {"target=v", "space=epsilon", "data=digits"} <= set(told["tags"])
    summary = json.loads(inspect(log, "--summary", "--json"))
    assert summary["state"] == "finished"
    assert summary["config"]["target"] == "v"
    assert summary["config"]["trainer.max_steps"] == 4
    assert summary["summary"]["val/belief_eps"] == pytest.approx(run.final["val/belief_eps"])
    assert summary["summary"]["fd/classifier_60"] == pytest.approx(run.final["fd/classifier_60"])
    assert summary["summary"]["status"] == "done"
    history = [r["history"] for r in records if r["type"] == "history"]
    assert all("images_seen" in json.dumps(line) for line in history)
    assert list(log.parent.glob("files/media/images/samples_*.png"))
    axes = [r for r in records if r["type"] == "metric"]
    assert any("images_seen" in json.dumps(axis) for axis in axes)
    assert not any("trainer/global_step" in json.dumps(axis) for axis in axes)


def inspect(log: Path, *flags: str) -> str:
    wandb = Path(sys.executable).parent / "wandb"
    return subprocess.run([wandb, "leet", "inspect", *flags, log], capture_output=True, text=True, check=True).stdout


def leet(log: Path) -> list[dict[str, Any]]:
    """The records of a log, once its last one has been written."""
    for _ in range(100):
        records = [json.loads(line) for line in inspect(log, "--json").splitlines()]
        if any(r["type"] == "exit" for r in records):
            return records
        time.sleep(0.1)
    raise AssertionError("the log never ended")


def test_a_diverging_run_keeps_its_last_good_figures_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep = ["-m", "optimizer.lr=1e30,1e-3", "trainer.gradient_clip_val=0", "trainer.max_steps=8"]
    assert train(tmp_path, *sweep) == 0
    bad, good = sorted(read_study(tmp_path / "s"), key=lambda run: -run.config["optimizer"]["lr"])
    assert (bad.status, good.status) == ("diverged", "done")
    assert bad.final["val/belief_eps"] > 0
    assert bad.record["images_seen"] < good.record["images_seen"]
    assert train(tmp_path, *sweep) == 0  # a diverged run is final
    assert bad.record["updated"] == Run.at(bad.path).record["updated"]


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["trainer.max_steps=9", "checkpoint.every_n_steps=4", "training.log_every=3", "validation.every=3"]
    settings += ["network.dropout=0.2"]
    assert train(tmp_path / "whole", *settings) == 0
    real = AdamW.step
    steps: list[int] = []

    def failing(self: AdamW, *args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        if len(steps) == 8:
            raise RuntimeError("the power went")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(AdamW, "step", failing)
    assert train(tmp_path / "parts", *settings) == 1
    failed = only_run(tmp_path / "parts")
    assert failed.status == "failed"
    assert failed.record["error"] == "RuntimeError: the power went"
    assert "the power went" in (failed.path / "traceback.txt").read_text()
    assert train(tmp_path / "parts", *settings) == 0
    whole, parts = only_run(tmp_path / "whole"), only_run(tmp_path / "parts")
    ours, theirs = (torch.load(run.path / "checkpoints/last.ckpt", weights_only=True) for run in (whole, parts))
    assert all(torch.equal(ours["state_dict"][key], theirs["state_dict"][key]) for key in ours["state_dict"])
    lines, again = (
        [
            {key: value for key, value in json.loads(line).items() if not key.startswith("time/")}
            for line in (run.path / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, parts)
    )
    assert lines == again
    assert (parts.status, parts.record["error"]) == ("done", None)
    assert not (parts.path / "traceback.txt").exists()


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path) == 0
    run = only_run(tmp_path)
    with try_locked(run.path) as alone:
        assert alone
        assert train(tmp_path, "trainer.max_steps=8") == 0
    assert "another process" in capsys.readouterr().out
    assert only_run(tmp_path).record["images_seen"] == run.record["images_seen"]


def test_a_schedulers_variables_make_no_rank_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As inside `srun --ntasks=2`: Lightning would refuse to be one process of two, and answer SIGUSR1 itself."""
    for name, value in {"NTASKS": "2", "PROCID": "1", "LOCALID": "1", "JOB_ID": "7", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    before = signal.getsignal(signal.SIGUSR1)
    assert train(tmp_path) == 0
    assert only_run(tmp_path).status == "done"
    assert signal.getsignal(signal.SIGUSR1) is before


def test_going_on_from_another_runs_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "-m", "target=epsilon,x0") == 0
    one, other = read_study(tmp_path / "s")
    (one.path / "checkpoints/last.ckpt").write_bytes((other.path / "checkpoints/last.ckpt").read_bytes())
    capsys.readouterr()
    assert train(tmp_path, "target=epsilon", "trainer.max_steps=8") == 1
    said = capsys.readouterr().err
    assert "differs in target._target_: diffexp.targets.X0 there, diffexp.targets.Epsilon now" in said
    assert "Traceback" not in said


def test_the_repeating_command_names_the_folder_of_ones_own_files(tmp_path: Path) -> None:
    (tmp_path / "mine" / "target").mkdir(parents=True)
    (tmp_path / "mine" / "target" / "half.yaml").write_text("_target_: diffexp.targets.Edm\nsigma_data: 0.25\n")
    assert train(tmp_path, f"--config-dir={tmp_path}/mine", "target=half") == 0
    assert f"--config-dir={tmp_path}/mine" in only_run(tmp_path).record["command"]


def test_raising_max_steps_extends_a_run_bit_for_bit(tmp_path: Path) -> None:
    assert train(tmp_path / "whole", "trainer.max_steps=8", "checkpoint.every_n_steps=4") == 0
    assert train(tmp_path / "parts", "trainer.max_steps=4", "checkpoint.every_n_steps=4") == 0
    assert train(tmp_path / "parts", "trainer.max_steps=8", "checkpoint.every_n_steps=4") == 0
    whole, parts = only_run(tmp_path / "whole"), only_run(tmp_path / "parts")
    ours, theirs = (
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (whole, parts)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert whole.final == parts.final


def test_a_course_student_predicts_the_clean_digit_without_telling_the_network_the_time(tmp_path: Path) -> None:
    assert train(tmp_path, "schedule=rectified", "target=x0", "network.conditioning=none") == 0
    assert only_run(tmp_path).status == "done"


def test_a_loss_space_of_ones_own_is_found_on_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "mine" / "target").mkdir(parents=True)
    (tmp_path / "mine" / "target" / "half.yaml").write_text("_target_: diffexp.targets.Edm\nsigma_data: 0.25\n")
    mine = f"--config-dir={tmp_path}/mine"
    assert train(tmp_path, mine, "target=half", "objective.space=half") == 0
    assert only_run(tmp_path).record["space"] == "half"


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_other_loggers_write_into_the_runs_directory(tmp_path: Path, kind: str) -> None:
    assert train(tmp_path, f"logger={kind}") == 0
    assert any((only_run(tmp_path).path / kind).iterdir())


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """wandb reads its environment once a process."""
    wandb.teardown()
    yield
    wandb.teardown()


def test_an_unreachable_wandb_server_costs_one_line(
    fresh_wandb: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    began = time.monotonic()
    assert train(tmp_path, "logger=wandb", "logger.mode=online", "logger.init_timeout=2") == 0
    assert time.monotonic() - began < 60
    told = [line for line in capfd.readouterr().err.splitlines() if "logged offline" in line]
    assert len(told) == 1
    assert list((tmp_path / "s" / "wandb").glob("offline-run-*/*.wandb"))
    assert only_run(tmp_path).status == "done"


def test_a_wandb_server_that_disappears_costs_no_run(
    fresh_wandb: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_FINISH_TIMEOUT", 2)  # for time's sake
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with wandb_server() as (url, began):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert train(tmp_path, "logger=wandb", "logger.mode=online") == 0
    run = only_run(tmp_path)
    assert began == [f"s-{run.record['config_hash']}-0"]
    assert run.status == "done"
    assert "Traceback" not in capfd.readouterr().err
    (log,) = (tmp_path / "s" / "wandb").glob("run-*/*.wandb")  # to be sent with `wandb sync`
    assert json.loads(inspect(log, "--summary", "--json"))["summary"]["val/belief_eps"] == run.final["val/belief_eps"]


class TwoAnswers(nn.Module):
    """A network that answers with twice as many channels."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.cat([x_t, x_t], 1) * self.weight


class Broken(TwoAnswers):
    """A network that fails when it is asked."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / (1 // 0)


@dataclass(frozen=True)
class Picky(V):
    """A target that cannot be made."""

    def __post_init__(self) -> None:
        raise RuntimeError("not today")


REFUSED = {
    "target=epsilom": ["target=epsilom", "Did you mean epsilon?"],
    "target=flow": ["chain", "target=v"],
    "schedule=rectified times.t_max=1.0": ["t = 1", "Fine on them: ", "v", "times.t_max="],
    "objective.space=eps": ["objective.space=eps", "epsilon"],
    "times.t_min=0.5 times.t_max=0.4": ["times.t_min=0.5", "t_min < t_max"],
    "sampler.steps=2000": ["sampler.steps=2000", "1000"],
    "trainer.max_step=3": ["trainer.max_step", "Did you mean trainer.max_steps?"],
    "data=images data.path=/no/such/place": ["/no/such/place", "does not exist"],
    "compute.precision=fp8": ["compute.precision=fp8", "bf16"],
    "seed=abc": ["seed=abc", "whole number"],
    "trainer.max_steps=0": ["trainer.max_steps=0", "1 or more"],
    "training.batch_size=0 sampling.grid=0": ["training.batch_size=0", "sampling.grid=0"],
    "training.ema_decay=1.5": ["training.ema_decay=1.5", "0.999"],
    "optimizer.lr=-1": ["optimizer.lr=-1"],
    "sampling.t_end=0.0005": ["0.0005", "0.001"],
    "logger.mode=onlin logger=wandb": ["logger.mode=onlin", "offline"],
    "compute.compile=maybe": ["compute.compile=maybe"],
    "+trainer.accumulate_grad_batches=2": ["accumulate_grad_batches", "batch_size"],
    "study=a/b": ["study=a/b", "root="],
    "network.widths=[8,8]": ["network.attention", "one"],
    "network.groups=3": ["network.groups=3", "ValueError: num_channels (8) must be divisible by num_groups (3)"],
    f"network._target_={__name__}.TwoAnswers": ["TwoAnswers returned shape (2, 2, 8, 8)"],
    f"network._target_={__name__}.Broken": [
        "Broken raises ZeroDivisionError: integer division or modulo by zero (test_train.py, line "
    ],
    f"target._target_={__name__}.Picky": ["test_train.Picky raises RuntimeError: not today (test_train.py, line "],
    "logger=mlflow": ["mlflow", "wandb"],
    "metric=inception": ["weights-inception-2015-12-05-6726825d.pth"],
}


@pytest.mark.parametrize("typed", REFUSED)
def test_bad_input_is_one_clear_message_and_leaves_nothing_on_disk(
    tmp_path: Path, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, *typed.split()) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("diffexp train: error: ")
    for part in REFUSED[typed]:
        assert part in said, said
    assert not list(tmp_path.rglob("run.json"))


def test_one_bad_job_of_a_sweep_is_told_before_the_first_one_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "-m", "target=epsilon,flow,v") == 2
    assert "1 of 3 jobs" in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))


def test_images_without_labels_cannot_be_judged_by_a_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "grey.npz", images=rng.integers(0, 256, (50, 8, 8), dtype=np.uint8))
    assert train(tmp_path, "data=images", f"data.path={tmp_path}/grey.npz", "metric=classifier") == 2
    said = capsys.readouterr().err
    assert "labels" in said
    assert "metric=none" in said
    assert not list(tmp_path.rglob("run.json"))


def test_a_directory_of_another_configuration_is_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    run = only_run(tmp_path)
    config = json.loads((run.path / "config.json").read_text())
    config["optimizer"]["lr"] = 0.5
    (run.path / "config.json").write_text(json.dumps(config))
    kept = (run.path / "metrics.jsonl").read_bytes()
    assert train(tmp_path) == 2
    assert "optimizer.lr" in capsys.readouterr().err
    assert (run.path / "metrics.jsonl").read_bytes() == kept


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "-m", "target=epsilon,x0") == 0
    one, other = read_study(tmp_path / "s")
    (one.path / "checkpoints/last.ckpt").write_bytes((other.path / "checkpoints/last.ckpt").read_bytes())
    for command in ("sample", "evaluate"):
        assert main([command, f"run={one.path}"]) == 2
        assert "target" in capsys.readouterr().err
    (one.path / "checkpoints/last.ckpt").write_bytes(b"PK\x03\x04 cut short")
    assert main(["sample", f"run={one.path}"]) == 2
    assert "last.ckpt" in capsys.readouterr().err
    assert main(["sample", f"run={tmp_path}"]) == 2
    assert "there is no run" in capsys.readouterr().err
