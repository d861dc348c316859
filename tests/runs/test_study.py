"""Reading a study back: whatever is there, at any time, and nothing outside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import change_record, write_run, write_study

from diffexp.errors import UserError
from diffexp.runs.study import find_study, read_study


def test_a_study_is_read_with_runs_in_creation_broken_records_and_strange_files(tmp_path: Path) -> None:
    for seed in (10, 2):
        write_run(tmp_path, "s", "x0", seed)
    write_run(tmp_path, "s", "v", 0).record_file.write_text('{"status": "do')
    (tmp_path / "s" / "score-00000000" / "seed=0").mkdir(parents=True)
    (tmp_path / "s" / "score-00000000" / "seed=zero").mkdir()
    (tmp_path / "s" / "score-00000000" / "seed=0.lock").touch()
    (tmp_path / "s" / "report.html").touch()
    found = [(run.name.split("-")[0], run.seed, run.status) for run in read_study(tmp_path / "s")]
    expected = [("score", 0, "starting"), ("v", 0, "unreadable"), ("x0", 2, "done"), ("x0", 10, "done")]
    assert found == expected


def test_links_out_of_a_study_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"status": "done", "command": "secret"}')
    run = write_run(tmp_path, "s", "x0", 0)
    run.record_file.unlink()
    run.record_file.symlink_to(secret)
    elsewhere = write_run(tmp_path, "other", "x0", 1)
    (run.path.parent / "seed=1").symlink_to(elsewhere.path)
    (only,) = read_study(tmp_path / "s")
    assert only.record == {}
    assert only.file("run.json") is None


def test_paths_in_a_record_are_words_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "x0", 0)
    change_record(run.record_file, study="../..", config_hash="../../..", samples="/etc/passwd", seed="../7")
    (read,) = read_study(tmp_path / "s")
    assert read.path == run.path
    assert read.seed == 0


@pytest.mark.parametrize("final", [None, [1], {"a": "b", "c": True, "d": 10**400}])
def test_a_final_that_is_no_map_of_numbers_is_empty(tmp_path: Path, final: object) -> None:
    change_record(write_run(tmp_path, "s", "x0", 0).record_file, final=final)
    assert read_study(tmp_path / "s")[0].final == {}


def test_a_study_is_found_by_folder_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write_study(tmp_path / "runs", "which_target", ("x0",), (0,))
    assert find_study("which_target", tmp_path / "runs") == study
    assert find_study(str(study), Path("nowhere")) == study
    monkeypatch.chdir(tmp_path / "runs")
    assert find_study("which_target", Path("runs")).samefile(study)


def test_a_study_that_does_not_exist_is_told_by_the_nearest_name_and_what_is_there(tmp_path: Path) -> None:
    for name in ("which_target", "fair_lr"):
        write_study(tmp_path, name, ("x0",), (0,))
    with pytest.raises(UserError, match=r"Did you mean which_target\? Studies under .*: fair_lr, which_target"):
        find_study("which_targt", tmp_path)
    with pytest.raises(UserError, match=r"There is no study under .*empty yet"):
        find_study("which_target", tmp_path / "empty")


def test_folders_that_are_no_study_say_what_they_are(tmp_path: Path) -> None:
    study = write_study(tmp_path / "runs", "s", ("x0",), (0,))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no runs.*Studies under .*: s"):
        find_study(str(tmp_path / "empty"), tmp_path / "runs")
    with pytest.raises(ValueError, match="holds the studies s: name one"):
        find_study(str(tmp_path / "runs"), tmp_path)
    with pytest.raises(ValueError, match=f"part of the study {study}"):
        find_study(str(next(study.iterdir())), tmp_path)
    with pytest.raises(ValueError, match=f"part of the study {study}"):
        find_study(str(next(study.glob("*/seed=0"))), tmp_path)


def test_reading_and_reporting_need_no_torch_and_no_logger(tmp_path: Path) -> None:
    study = write_study(tmp_path, "s", ("epsilon", "x0"), (0, 1))
    code = (
        "import sys; from diffexp.cli.report import main; code = main(sys.argv[1:]); "
        "heavy = ('torch', 'pytorch_lightning', 'wandb', 'hydra', 'jaxtyping'); "
        "print(code, [name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(study)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert (study / "report.html").exists()


def test_the_lines_that_tell_a_metric_are_those_of_all_lines_that_do(tmp_path: Path) -> None:
    write_run(tmp_path, "s", "v", 0, lines=7, validations=3)
    (run,) = read_study(tmp_path / "s")
    every = [line for line in run.metrics() if "val/belief_eps" in line]
    told = run.metrics("val/belief_eps")
    assert len(told) == 3
    assert [{key: all_of[key] for key in line} for line, all_of in zip(told, every, strict=True)] == told
    assert len(run.metrics("val/nothing")) == 0
