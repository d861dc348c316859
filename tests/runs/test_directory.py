"""A run's directory: identity, atomic writes, whole lines."""

import json
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from diffexp.runs.config_keys import NOT_IDENTITY
from diffexp.runs.directory import RunDirectory, config_hash, flat, measurement, readable, samples_hash
from diffexp.runs.study import read_study

CONFIG: dict[str, Any] = {
    "root": "runs",
    "study": "s",
    "seed": 0,
    "logger": {"name": "wandb", "mode": "offline"},
    "checkpoint": {"every_n_steps": 100},
    "fail_fast": False,
    "cache": None,
    "metric": {"cache": None, "count": {"classifier": 1000}},
    "sampler": {"_target_": "diffexp.samplers.Ddim", "steps": 50},
    "sampling": {"clip": True, "grid": 64},
    "validation": {"count": 1024, "every": 2000},
    "hydra": {"job": 1},
    "target": {"_target_": "diffexp.targets.Epsilon"},
    "optimizer": {"lr": 1e-4, "betas": [0.9, 0.999]},
    "data": {"path": None, "batch_size": 128},
    "seeds_of_data": 3,
    "trainer": {
        "max_steps": 500,
        "accelerator": "auto",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "max_steps_of_warmup": 10,
    },
    "compute": {"precision": "auto", "channels_last": "auto", "compile": "auto"},
}


def changed(key: str) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    *above, last = key.split(".")
    place = config
    for name in above:
        place = place[name]
    place[last] = "something else"
    return config


@pytest.mark.parametrize("key", [key for key, _ in flat(CONFIG)])
def test_the_hash_leaves_out_where_how_long_and_how_measured_a_run_is_and_nothing_else(key: str) -> None:
    outside = {"root", "study", "seed", "logger", "checkpoint", "fail_fast", "cache", "hydra"}
    outside |= {"sampler", "metric", "sampling"}
    device = {"trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"}
    device |= {"compute.channels_last", "compute.compile"}
    left_out = key.split(".")[0] in outside or key in device or key == "trainer.max_steps"
    assert (config_hash(changed(key)) == config_hash(CONFIG)) is left_out


@pytest.mark.parametrize("key", [key for key, _ in flat(CONFIG)])
def test_a_measurement_is_what_moves_the_numbers_of_samples(key: str) -> None:
    moves = key in ("sampler._target_", "sampler.steps", "sampling.clip", "metric.count.classifier")
    assert (measurement(changed(key)) != measurement(CONFIG)) is moves
    assert (samples_hash(changed(key)) != samples_hash(CONFIG)) is (moves and not key.startswith("metric"))


def test_every_key_that_the_hash_leaves_out_is_tried_above() -> None:
    tried = {key for key, _ in flat(CONFIG)} | {key.split(".")[0] for key, _ in flat(CONFIG)}
    assert set(NOT_IDENTITY) <= tried


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    digest = config_hash(dict(reversed(CONFIG.items())))
    assert digest == config_hash(CONFIG)
    assert len(digest) == 8
    assert int(digest, 16) >= 0


def test_a_directory_has_a_readable_safe_and_short_name() -> None:
    assert readable(["epsilon", "native", "linear_beta", "digits"]) == "epsilon-native-linear_beta-digits"
    assert readable(["../../etc", "a b/c\n"]) == "etc-a_b_c"
    assert readable([".."]) == "run"
    assert len(readable(["x" * 300])) == 100


@pytest.mark.parametrize("study", ["../elsewhere", "a/b", "..", ""])
def test_a_study_cannot_leave_its_root(tmp_path: Path, study: str) -> None:
    with pytest.raises(ValueError, match="not a plain name"):
        RunDirectory(tmp_path, study, ("x0",), "0" * 8, 0)


def directory(root: Path) -> RunDirectory:
    return RunDirectory(root, "s", ("epsilon", "native"), config_hash(CONFIG), 3)


def test_the_path_is_study_choices_hash_and_seed(tmp_path: Path) -> None:
    assert directory(tmp_path).path == tmp_path / "s" / f"epsilon-native-{config_hash(CONFIG)}" / "seed=3"


def test_another_configuration_is_refused_by_naming_the_difference_and_nothing_is_touched(
    tmp_path: Path,
) -> None:
    run = directory(tmp_path)
    run.open({"status": "done"}, CONFIG)
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(ValueError, match=r"another configuration \(optimizer.lr: 0.0001 there, something else now\)"):
        run.open({"status": "running"}, changed("optimizer.lr"))
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_run_that_is_extended_keeps_its_past(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({"status": "done", "created": "2026-01-01T00:00:00+00:00", "final": {"val/loss": 1.0}}, CONFIG)
    run.open({"status": "running"}, changed("trainer.max_steps"))
    assert run.record["created"] == "2026-01-01T00:00:00+00:00"
    assert run.record["final"] == {"val/loss": 1.0}
    assert run.record["status"] == "running"
    assert read_study(run.root / "s")[0].config["trainer"]["max_steps"] == "something else"


def test_a_configuration_with_tuples_and_small_floats_is_its_own_after_reading_back(tmp_path: Path) -> None:
    config = {
        "optimizer": {"betas": (0.9, 0.999), "lr": 1e-05, "eps": 3e-9},
        "name": "1e-5",
        "on": "yes",
        "none": None,
    }
    run = RunDirectory(tmp_path, "s", ("x0",), config_hash(config), 0)
    run.open({}, config)
    run.open({}, config)


def test_a_record_that_cannot_be_written_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({"status": "running"}, CONFIG)
    with pytest.raises(TypeError, match="no JSON value"):
        run.write_record(status=object())
    assert run.record["status"] == "running"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "config.yaml", "run.json"]


def test_a_reader_never_meets_half_a_record(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({"note": ""}, CONFIG)
    stop = threading.Event()

    def write() -> None:
        for step in range(100):
            run.write_record(note="x" * 20_000 * (step % 3), images_seen=step)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not stop.is_set():
        assert "note" in json.loads(run.record_file.read_text())
        reads += 1
    writer.join()
    assert reads > 10


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({"final": {"val/loss": float("inf")}}, CONFIG)
    run.append_metrics({"images_seen": 1, "train/loss": float("nan"), "time/elapsed": 2.5})
    assert json.loads(run.record_file.read_text())["final"] == {"val/loss": None}
    assert run.metrics_file.read_text() == '{"images_seen": 1, "train/loss": null, "time/elapsed": 2.5}\n'


def test_a_resumed_run_forgets_the_lines_since_its_checkpoint_the_half_written_one_too(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({}, CONFIG)
    run.append_metrics({"images_seen": 1, "train/loss": 4.0})
    size = run.metrics_size()
    run.append_metrics({"images_seen": 1, "val/loss": 3.0})  # of the same step, but after its checkpoint
    with run.metrics_file.open("a") as file:
        file.write('{"images_seen": 2, "train/lo')
    run.truncate_metrics(size)
    run.append_metrics({"images_seen": 3, "train/loss": 2.0})
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == [
        {"images_seen": 1, "train/loss": 4.0},
        {"images_seen": 3, "train/loss": 2.0},
    ]


def test_metrics_need_the_axis_of_all_curves(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({}, CONFIG)
    with pytest.raises(ValueError, match="without images_seen"):
        run.append_metrics({"train/loss": 1.0})


def test_what_was_written_last_wins_and_what_is_no_line_is_passed_over(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.open({}, CONFIG)
    lines = [
        '{"images_seen": 128, "train/loss": 4.0, "val/loss": 9.0}',
        '{"images_seen": 256, "train/loss": NaN}',
        '["images_seen"]',
        '{"images_seen": "128"}',
        "\x00\xff",
        "[" * 100_000,
        '{"images_seen": 128, "train/loss": 3.0}',
        '{"images_seen": 384, "train/lo',
    ]
    run.metrics_file.write_text("\n".join(lines))
    assert read_study(tmp_path / "s")[0].metrics() == [
        {"images_seen": 128, "train/loss": 3.0, "val/loss": 9.0},
        {"images_seen": 256, "train/loss": None},
    ]
