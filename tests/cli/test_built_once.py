"""What one command makes and writes: each part once, run.json only when it has news, nothing about jobs it has not."""

from functools import partial
from pathlib import Path

import counting
import pytest
import torch
from quick import QUICK

from diffexp.cli import sweep
from diffexp.cli.main import main
from diffexp.io.progress import progress
from diffexp.runs.directory import RunDirectory
from diffexp.runs.study import read_study

COUNTED = (
    "target._target_=counting.Target",
    "network._target_=counting.Network",
    "data._target_=counting.Source",
)


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def train(root: Path, *overrides: str) -> int:
    return main(["train", f"root={root}", "study=s", *QUICK, "logger=none", *overrides])


def test_target_network_and_data_of_one_run_are_made_once(tmp_path: Path) -> None:
    counting.made.clear()
    assert train(tmp_path, *COUNTED) == 0
    assert dict(counting.made) == {"target": 1, "network": 1, "data": 1}


def test_what_was_tried_is_what_trains(tmp_path: Path) -> None:
    """The network of the check is the one trained, unchanged by the check: a sweep, which makes it anew, ends alike."""
    assert train(tmp_path / "one", "seed=1") == 0
    assert train(tmp_path / "several", "-m", "seed=0,1") == 0
    (alone,), (_, second) = read_study(tmp_path / "one" / "s"), read_study(tmp_path / "several" / "s")
    assert alone.final == second.final


def test_lines_of_metrics_do_not_rewrite_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []
    write = RunDirectory.write_record

    def counted(self: RunDirectory, **changes: object) -> None:
        writes.append(self.study)
        write(self, **changes)

    monkeypatch.setattr(RunDirectory, "write_record", counted)
    for log_every in (1, 100):
        settings = ("trainer.max_steps=12", "validation.every=6", f"training.log_every={log_every}")
        assert train(tmp_path, *settings, f"study=every_{log_every}") == 0
    assert writes.count("every_1") == writes.count("every_100")
    lines = [len(run.metrics()) for study in ("every_1", "every_100") for run in read_study(tmp_path / study)]
    assert lines[0] > lines[1]


def test_a_single_run_says_nothing_of_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "progress", partial(progress, patience=0.0))  # as if every check took long
    assert train(tmp_path) == 0
    printed = capsys.readouterr()
    assert "job" not in printed.out + printed.err
    assert train(tmp_path, "-m", "seed=1,2") == 0
    assert "checking the jobs" in capsys.readouterr().err
