"""What was measured of a run, read back: by question, in order, with little taken on trust."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffexp.runs.evaluations import (
    Evaluation,
    question_hash,
    read_evaluations,
    record_name,
    sampler_settings,
    unreadable_evaluations,
)
from diffexp.runs.study import Run

DDIM = {"_target_": "diffexp.samplers.Ddim", "steps": 50, "eta": 0.0, "grid": "time", "clip": True, "t_end": 0.0}
RECORD: dict[str, Any] = {
    "sampler": "ddim", "steps": 50, "eta": 0.0, "grid": "time", "clip": True, "nfe": 50, "weights": "last",
    "step": 20000, "settings": {"sampler": DDIM}, "metrics": {"fd/classifier_1k": 3.2, "kid/classifier_1k": None},
    "diagnostics": {}, "created": "2026-11-28T12:00:00+00:00", "command": "diffexp evaluate run=A", "versions": {},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "study" / "v-native-1a2b3c4d" / "seed=0"
    (path / "evaluations").mkdir(parents=True)
    found = Run.at(path)
    assert found is not None
    return found


def write(run: Run, name: str, record: object) -> None:
    (run.path / "evaluations" / name).write_text(record if isinstance(record, str) else json.dumps(record))


def test_an_evaluation_is_read_back(run: Run) -> None:
    write(run, "ddim-50-last-20000-1a2b3c4d.json", RECORD)
    assert read_evaluations(run) == (
        Evaluation(
            name="ddim-50-last-20000-1a2b3c4d", sampler="ddim", steps=50, eta=0.0, grid="time", clip=True, nfe=50,
            weights="last", step=20000, metrics={"fd/classifier_1k": 3.2}, settings={"sampler": DDIM},
        ),
    )  # fmt: skip


def test_evaluations_are_ordered_by_sampler_steps_and_weights(run: Run) -> None:
    for name, changes in {
        "a": {"sampler": "heun", "steps": 9},
        "b": {"steps": 100},
        "c": {"steps": 50, "weights": "last"},
        "d": {"steps": 50, "weights": "best"},
        "e": {"steps": 50, "weights": "last", "step": 10},
        "f": {"sampler": "ddim", "steps": None},
    }.items():
        write(run, f"{name}.json", RECORD | changes)
    assert "".join(evaluation.name for evaluation in read_evaluations(run)) == "fdecba"


FOREIGN = {
    "no JSON": "{",
    "a list": "[1, 2]",
    "empty": "{}",
    "no metrics": {key: value for key, value in RECORD.items() if key != "metrics"},
    "no step": RECORD | {"step": "many"},
    "no settings": RECORD | {"settings": None},
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_left_out_and_named(run: Run, name: str) -> None:
    write(run, "good.json", RECORD)
    write(run, "foreign.json", FOREIGN[name])
    write(run, ".good.json.part", "{")
    write(run, "notes.txt", "mine")
    assert [evaluation.name for evaluation in read_evaluations(run)] == ["good"]
    assert unreadable_evaluations(run) == ("evaluations/foreign.json",)


def test_strange_values_become_none(run: Run) -> None:
    write(
        run,
        "a.json",
        RECORD | {"steps": True, "eta": "x", "grid": [1, 0], "clip": "yes", "nfe": 1e300, "sampler": "a\nb"},
    )
    (found,) = read_evaluations(run)
    assert (found.steps, found.eta, found.grid, found.clip, found.nfe) == (None, None, None, False, 0)
    assert found.sampler == "a b"


def test_links_out_of_the_study_are_not_followed(run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.json").write_text(json.dumps(RECORD))
    (run.path / "evaluations" / "link.json").symlink_to(elsewhere / "a.json")
    assert read_evaluations(run) == ()
    assert unreadable_evaluations(run) == ("evaluations/link.json",)
    (run.path / "evaluations" / "link.json").unlink()
    (run.path / "evaluations").rmdir()
    (run.path / "evaluations").symlink_to(elsewhere)
    assert read_evaluations(run) == ()


def test_a_run_without_evaluations_has_none(run: Run) -> None:
    (run.path / "evaluations").rmdir()
    assert read_evaluations(run) == unreadable_evaluations(run) == ()


def test_the_one_file_of_0_1_is_read(run: Run) -> None:
    old = {"weights": "best", "step": 400, "nfe": 20, "sampler": {**DDIM, "steps": 20}, "metric": {"count": 1000},
           "likelihood": {"count": 0}, "metrics": {"val/belief_eps": 0.1}, "diagnostics": {}}  # fmt: skip
    (run.path / "evaluation.json").write_text(json.dumps(old))
    (found,) = read_evaluations(run)
    assert (found.name, found.sampler, found.steps, found.nfe) == ("evaluation", "ddim", 20, 20)
    assert (found.weights, found.step, found.clip, found.metrics) == ("best", 400, True, {"val/belief_eps": 0.1})
    assert found.settings["metric"] == {"count": 1000}


def test_a_question_is_its_settings_and_weights_alone() -> None:
    settings = {"sampler": DDIM, "likelihood": {"count": 0}}
    same = {"likelihood": {"count": 0}, "sampler": dict(reversed({**DDIM, "t_end": 0}.items()))}
    assert question_hash("last", settings) == question_hash("last", same)
    others = [("best", settings), ("last", {**settings, "sampler": {**DDIM, "steps": 51}}),
              ("last", {**settings, "sampler": {**DDIM, "clip": 1}})]  # fmt: skip
    assert len({question_hash(*each) for each in others} | {question_hash("last", settings)}) == 4


def test_a_file_is_named_by_sampler_weights_and_step() -> None:
    digest = question_hash("last", {"sampler": DDIM})
    assert record_name("ddim", "last", 500, {"sampler": DDIM}) == f"evaluations/ddim-50-last-500-{digest}.json"
    assert record_name("none", "best", 7, {"sampler": None}).startswith("evaluations/none-best-7-")
    assert record_name("../x/y", "last", 1, {}).count("/") == 1


def test_settings_that_a_sampler_lacks_are_none() -> None:
    assert sampler_settings({"steps": 5, "grid": [1.0, 0.5, 0.0]}) == {
        "steps": 5,
        "eta": None,
        "grid": "own",
        "clip": None,
    }
    assert sampler_settings(None) == {"steps": None, "eta": None, "grid": None, "clip": None}
