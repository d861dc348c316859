"""The report: rows and verdicts of made-up studies, tables that show what they rest on, a page that stands alone."""

import csv
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import plotly.graph_objects as go
import pytest
from rich.console import Console
from synthetic import belief, change_record, write_run, write_study

from diffexp.cli.report import main
from diffexp.cli.status import main as status_main
from diffexp.io.files import locked
from diffexp.report.curves import by_band, read_curves
from diffexp.report.export import to_csv, to_json
from diffexp.report.figures import Figure, Study, draw_figures
from diffexp.report.markdown import to_markdown
from diffexp.report.metrics import Metric, comparable_metrics
from diffexp.report.notes import cautions, facts, failures
from diffexp.report.page import write_page
from diffexp.report.ranking import comparable_parts, rankings
from diffexp.report.statistics import holm
from diffexp.report.style import style_of
from diffexp.report.summary import Summary, summarise
from diffexp.report.terminal import as_text, print_summary
from diffexp.report.verdict import question, verdict
from diffexp.runs.directory import RunDirectory

# --- rows and summaries ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs"), "s", seeds=(0, 1, 2), lines=20, validations=4)


@pytest.fixture(scope="module")
def summary(study: Path) -> Summary:
    return summarise(study)


def with_final(directory: RunDirectory, **metrics: float | None) -> None:
    final = directory.record["final"] | {key.replace("__", "/"): value for key, value in metrics.items()}
    change_record(directory.record_file, final=final)


def test_runs_that_differ_only_in_seed_are_one_row_and_equal_choices_are_named_once(summary: Summary) -> None:
    assert [row.label for row in summary.rows] == ["epsilon", "scaled_noise", "x0", "score", "v"]
    assert {len(row.runs) for row in summary.rows} == {3}
    assert summary.common["schedule"] == "linear_beta"
    assert "target" not in summary.common


def test_a_label_names_what_varies_target_first(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("x0", "v"), (0,), spaces=("native", "v"), rates=(1e-3, 1e-4), lines=2, validations=1)
    labels = [row.label for row in summarise(tmp_path / "s").rows]
    assert labels[:3] == [
        "x0, space native, lr 0.0001",
        "x0, space native, lr 0.001",
        "x0, space v, lr 0.0001",
    ]


def test_two_settings_of_one_target_are_distinguished(tmp_path: Path) -> None:
    for steps in (10, 20):
        config = {"target": {"_target_": "StepNoise", "steps": steps}}
        for target, settings in (("step_noise", config), ("x0", {"target": {"_target_": "X0"}})):
            directory = RunDirectory(tmp_path, "s", (target, str(steps)), f"{steps:08x}", 0)
            directory.open({"target": target, "status": "done", "final": {"val/belief_eps": 0.1}}, settings)
    labels = [row.label for row in summarise(tmp_path / "s").rows]
    assert labels[:2] == ["step_noise, steps 10", "step_noise, steps 20"]
    assert len(set(labels)) == 4


def test_a_difference_is_to_the_row_with_all_else_equal(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("epsilon", "x0"), (0, 1), spaces=("native", "v"), lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    baselines = {row.label: summary.baselines[row.name].label for row in summary.rows}
    assert baselines["x0, space v"] == "epsilon, space v"
    assert baselines["x0, space native"] == "epsilon, space native"
    by_space = summarise(tmp_path / "s", baseline="space=v")
    assert by_space.baselines[by_space.rows[2].name].label == "x0, space v"


def test_without_epsilon_the_first_row_is_the_baseline(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("v", "x0"), (0, 1), lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    assert summary.baseline_label == "x0"
    assert summary.cell(summary.rows[1], "val/belief_eps").difference is not None


def test_an_unknown_baseline_gets_the_nearest_name(study: Path) -> None:
    with pytest.raises(ValueError, match=r"no run has target=epsilom\. Did you mean epsilon\?"):
        summarise(study, baseline="epsilom")
    with pytest.raises(ValueError, match=r"no run of this study records colour\. What varies here: target"):
        summarise(study, baseline="colour=red")


def test_the_difference_rests_on_shared_seeds_when_one_side_lacks_some(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        with_final(write_run(tmp_path, "s", "epsilon", seed), val__belief_eps=1.0 + seed)
    for seed in (1, 2, 3):
        with_final(write_run(tmp_path, "s", "x0", seed), val__belief_eps=1.5 + seed)
    cell = (summary := summarise(tmp_path / "s")).cell(summary.rows[1], "val/belief_eps")
    assert cell.value is not None
    assert cell.difference is not None
    assert (cell.value.n, cell.value.mean) == (3, 3.5)
    assert (cell.difference.n, cell.difference.mean) == (2, 0.5)


def test_only_finished_runs_enter_a_mean_and_the_others_are_counted(tmp_path: Path) -> None:
    with_final(write_run(tmp_path, "s", "x0", 0), val__belief_eps=0.2)
    for seed, status in enumerate(("running", "failed", "diverged", "interrupted"), start=1):
        with_final(write_run(tmp_path, "s", "x0", seed, status=status), val__belief_eps=9.0)
    summary = summarise(tmp_path / "s")
    value = summary.cell(summary.rows[0], "val/belief_eps").value
    assert value is not None
    assert (value.mean, value.n) == (0.2, 1)
    text = as_text(summary)
    for words in ("1 done", "1 stopped", "1 failed", "1 diverged", "1 interrupted"):
        assert words in text


def test_the_states_are_those_of_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, status in enumerate(("done", "running", "running", "failed", "diverged", "interrupted", "running")):
        run = write_run(tmp_path, "s", "x0", seed, status=status)
    change_record(run.record_file, host="elsewhere")  # a sign of life, from a machine whose locks are not seen
    (run.path / "heartbeat").touch()
    counts = "7 runs: 1 failed, 1 stopped, 1 interrupted, 2 running, 1 diverged, 1 done"
    with locked(tmp_path / "s" / run.path.parent.name / "seed=1"):
        summary = summarise(tmp_path / "s")
        assert status_main(["s", "--root", str(tmp_path)]) == 0
    assert f"s: {counts};" in capsys.readouterr().out
    page = Page(write_page(summary, tmp_path)).text
    for text in (as_text(summary), to_markdown(summary), page):
        assert f"{counts}." in text
    assert " ".join(as_text(summary).split()).count("1 stopped") == 2  # also in the row
    found = [run["status"] for run in json.loads(to_json(summary))["runs"]]
    assert found == ["done", "running", "stopped", "failed", "diverged", "interrupted", "running"]
    assert [state in page for state in ("seed 1: running", "seed 2: stopped", "seed 6: running")] == [True] * 3


def test_another_machines_run_without_a_sign_of_life_is_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "x0", 0, status="running", host="elsewhere")
    (run.path / "heartbeat").touch()
    os.utime(run.path / "heartbeat", (0, 0))
    assert "1 run: 1 stopped." in as_text(summarise(tmp_path / "s"))


def test_numbers_that_are_not_finite_do_not_enter_a_mean(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, None, 0.4)):
        with_final(write_run(tmp_path, "s", "x0", seed), val__belief_eps=value)
    summary = summarise(tmp_path / "s")
    value = summary.cell(summary.rows[0], "val/belief_eps").value
    assert value is not None
    assert (value.mean, value.n) == (pytest.approx(0.3), 2)


def test_losses_bands_floors_and_notes_are_no_columns() -> None:
    keys = ["val/loss", "val/zero_loss", "val/belief_x0", "val/belief_x0/lam_-2_0", "fd/classifier_1k",
            "fd/classifier_1k/floor", "fd/classifier_1k/floor_count", "fd/classifier_1k/unreliable",
            "train/loss", "time/elapsed", "val/belief_eps", "val/bits_per_dim",
            "precision/classifier_1k"]  # fmt: skip
    found = [metric.key for metric in comparable_metrics(keys)]
    assert found == [
        "val/belief_eps",
        "val/belief_x0",
        "val/bits_per_dim",
        "fd/classifier_1k",
        "precision/classifier_1k",
    ]
    assert Metric("fid/inception_50k").title == "FID inception 50k"
    assert Metric("precision/classifier_1k").higher_is_better


def test_holm_covers_the_rows_of_a_column_and_needs_three_pairs(summary: Summary, tmp_path: Path) -> None:
    cells = [summary.cell(row, "val/belief_eps") for row in summary.rows]
    tested = [(cell.difference.p, cell.p_holm) for cell in cells if cell.difference]
    raw = [p for p, _ in tested if p is not None]
    assert [p for _, p in tested] == holm(raw)
    write_study(tmp_path, "s", ("epsilon", "x0"), (0, 1), lines=2, validations=1)
    few = summarise(tmp_path / "s")
    assert all(cell.p_holm is None for cell in few.cells.values())


def rates(root: Path) -> Path:
    """v's belief is best at 1e-3 and its samples at 1e-4; epsilon's both at 1e-4."""
    for target, rate, error, distance in (("epsilon", 1e-4, 0.10, 5.0), ("epsilon", 1e-3, 0.20, 9.0),
                                           ("v", 1e-4, 0.15, 4.0), ("v", 1e-3, 0.08, 6.0)):  # fmt: skip
        for seed in (0, 1):
            run = write_run(root, "s", target, seed, rate=rate, lines=2, validations=1)
            with_final(run, val__belief_eps=error + seed / 1000, fd__classifier_1k=distance + seed / 100)
    return root / "s"


def test_after_a_rate_sweep_each_target_is_also_shown_at_its_best_rate(tmp_path: Path) -> None:
    summary = summarise(rates(tmp_path))
    best = summary.best_rate
    assert best is not None
    assert len(summary.rows) == 4
    assert [row.label for row in best.rows] == ["epsilon, lr 0.0001", "v, lr 0.001"]
    difference = best.cell(best.rows[1], "val/belief_eps").difference
    assert difference is not None
    assert difference.mean == pytest.approx(-0.02)
    _, chosen = as_text(summary).split("Each at its best learning rate")
    assert "by mean val/belief_eps, chosen on these same runs" in " ".join(chosen.split())
    assert "Another metric may choose other rates and so another order" in " ".join(chosen.split())
    assert [line.split()[:2] for line in chosen.splitlines() if line.startswith((" epsilon", " v"))] == [
        ["epsilon", "0.0001"],
        ["v", "0.001"],
    ]


def test_the_rate_can_be_chosen_by_another_metric(tmp_path: Path) -> None:
    best = summarise(rates(tmp_path), chosen_by="fd/classifier_1k").best_rate
    assert best is not None
    assert [row.label for row in best.rows] == ["epsilon, lr 0.0001", "v, lr 0.0001"]
    with pytest.raises(ValueError, match=r"--select fd/other: no finished run has it\. Available: val/belief_eps"):
        summarise(tmp_path / "s", chosen_by="fd/other")


# --- what may be compared --------------------------------------------------------------------------------


def mixed(root: Path, **changes: object) -> Path:
    """x0 leads on one schedule and epsilon on the other, where errors are ten times as large; t_max goes with it."""
    for schedule, t_max, scale in (("linear_beta", None, 1.0), ("rectified", 0.999, 10.0)):
        settings = {"schedule": {"_target_": schedule}, "times": {"t_max": t_max}}
        for target, error in (("epsilon", 0.1 * scale), ("x0", 0.2 / scale)):
            run = write_run(root, "s", target, 0, lines=2, validations=1, settings=settings, schedule=schedule,
                            t_max=t_max or 1.0, **changes)  # fmt: skip
            distance = scale + (target == "x0")
            change_record(run.record_file, final={"val/belief_eps": error, "fd/classifier_1k": distance})
    return root / "s"


def test_prediction_errors_are_ranked_within_a_schedule_and_samples_across(tmp_path: Path) -> None:
    summary = summarise(mixed(tmp_path))
    assert list(summary.groups) == [
        "schedule linear_beta, t_max 1.0",
        "schedule rectified, t_max 0.999",
    ]
    parts = {name: rankings(part) for name, part in comparable_parts(summary)}
    assert {name: [(s.metric.key, s.best.phrase, len(s.worse)) for s in found] for name, found in parts.items()} == {
        "schedule linear_beta, t_max 1.0": [("val/belief_eps", "epsilon", 1)],
        "schedule rectified, t_max 0.999": [("val/belief_eps", "x0", 1)],
        "samples of all rows": [("fd/classifier_1k", "epsilon (schedule linear_beta)", 3)],
    }
    assert "Prediction errors are compared only where" in verdict(summary)[0]
    assert "Varies with schedule and is not shown separately: times.t_max." in " ".join(facts(summary))
    page = Page(write_page(summary, tmp_path)).text
    assert "samples of all rows" in page
    assert "Bold: best of its column and group" in page


def test_no_difference_is_taken_between_prediction_errors_of_two_schedules(tmp_path: Path) -> None:
    summary = summarise(mixed(tmp_path), baseline="schedule=linear_beta")
    other = next(row for row in summary.rows if row.choices["schedule"] == "rectified")
    assert summary.baselines[other.name].choices["schedule"] == "linear_beta"
    assert summary.cell(other, "val/belief_eps").difference is None
    assert summary.cell(other, "fd/classifier_1k").difference is not None, "the images are the same"


def test_on_two_data_sets_nothing_is_ranked_across(tmp_path: Path) -> None:
    for data in ("digits", "mnist"):
        for target in ("epsilon", "x0"):
            write_run(tmp_path, "s", target, 0, data=data, lines=2, validations=1, settings={"data": {"name": data}})
    summary = summarise(tmp_path / "s", baseline="data=digits")
    assert [name for name, _ in comparable_parts(summary)] == ["data digits", "data mnist"]
    assert not summary.compares


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"optimizer": {"lr": 1e-3}}, {}),
        ({"objective": {"space": "x0"}}, {"space": "x0"}),
        ({"times": {"_target_": "LogitNormal"}}, {"times": "logit_normal"}),
        ({"network": {"width": 64}}, {"network": "small"}),
        ({"data": {"flip": True}}, {}),
    ],
)
def test_what_the_held_out_draws_do_not_feel_is_comparable(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any]
) -> None:
    write_run(tmp_path, "s", "epsilon", 0, lines=2, validations=1)
    write_run(tmp_path, "s", "epsilon", 0, lines=2, validations=1, settings=settings, **changes)
    summary = summarise(tmp_path / "s")
    assert len(summary.rows) == 2
    assert list(summary.groups) == [""]


def test_a_study_of_schedules_says_why_it_has_no_verdict_on_prediction_errors(tmp_path: Path) -> None:
    for schedule in ("linear_beta", "cosine"):
        run = write_run(tmp_path, "s", "v", 0, lines=2, validations=1, schedule=schedule,
                        settings={"schedule": {"_target_": schedule}})  # fmt: skip
        change_record(run.record_file, final={"val/belief_eps": 0.1})
    found = " ".join(verdict(summarise(tmp_path / "s")))
    assert "a ranking for each of schedule cosine and schedule linear_beta" in found
    assert "No group has two rows with finished runs" in found


def test_a_setting_that_repeats_another_is_named_once(tmp_path: Path) -> None:
    for seed, clip in enumerate((True, False)):
        settings = {"sampling": {"clip": clip, "t_start": 1.0 if clip else 0.9},
                    "sampler": {"clip": clip, "t_start": 1.0 if clip else 0.9}}  # fmt: skip
        write_run(tmp_path, "s", "x0", seed, lines=2, validations=1, settings=settings)
    summary = summarise(tmp_path / "s")
    assert summary.keys == ("sampling.clip", "sampling.t_start")
    assert {row.label for row in summary.rows} == {"clip True, t_start 1", "clip False, t_start 0.9"}


def test_seeds_that_are_sampled_in_different_ways_are_not_averaged(tmp_path: Path) -> None:
    for seed, steps in ((0, 50), (1, 50), (2, 10)):
        sampler = {"_target_": "diffexp.samplers.Ddim", "steps": steps}
        write_run(tmp_path, "s", "x0", seed, lines=2, validations=1, settings={"sampler": sampler})
    assert len({path.name for path in (tmp_path / "s").iterdir()}) == 1
    summary = summarise(tmp_path / "s")
    assert summary.keys == ("sampler.steps",)
    assert {row.label: [run.seed for run in row.runs] for row in summary.rows} == {"steps 50": [0, 1], "steps 10": [2]}


def test_a_setting_that_goes_with_the_target_stays_in_sight(tmp_path: Path) -> None:
    for target, clip in (("epsilon", 1.0), ("x0", 5.0)):
        settings = {"trainer": {"gradient_clip_val": clip}}
        write_run(tmp_path, "s", target, 0, rate=clip / 1000, lines=2, validations=1, settings=settings)
    assert summarise(tmp_path / "s").keys == ("target", "optimizer.lr", "trainer.gradient_clip_val")


# --- the end of training ---------------------------------------------------------------------------------


def trains(root: Path, target: str, errors: dict[int, float]) -> None:
    run = write_run(root, "s", target, 0, lines=0, validations=0)
    with run.metrics_file.open("a") as file:
        for seen, error in errors.items():
            file.write(json.dumps({"images_seen": seen, "val/belief_eps": error, "val/belief_x0": 1300 * error}) + "\n")
    change_record(run.record_file, final={"val/belief_eps": list(errors.values())[-1]})


def test_the_fall_over_the_last_tenth_is_that_of_the_curve(tmp_path: Path) -> None:
    trains(tmp_path, "x0", {0: 1.0, 800: 0.4, 1000: 0.324})  # 0.4 * 0.9 ** 2: a tenth lower in each tenth
    trains(tmp_path, "v", {0: 1.0, 800: 0.4, 1000: 0.39})
    summary = summarise(tmp_path / "s")
    falls = {row.label: summary.fall(row) for row in summary.rows}
    assert falls == {"x0": pytest.approx(0.1), "v": pytest.approx(1 - (0.39 / 0.4) ** 0.5)}
    found = " ".join(failures(summary))
    assert "The eps-error was still falling when training ended" in found
    assert "x0 (10 %). The order may change with longer training" in found


def test_the_cost_of_predicting_zero_is_read_off_an_untrained_epsilon_network_alone(tmp_path: Path) -> None:
    trains(tmp_path, "epsilon", {0: 1.0002, 1000: 0.2})
    trains(tmp_path, "v", {0: 1.0, 1000: 0.2})
    summary = summarise(tmp_path / "s")
    known = {row.label: dict(summary.zero_prediction(row)) for row in summary.rows}
    assert known == {"epsilon": {"val/belief_eps": 1.0002, "val/belief_x0": pytest.approx(1300.26)}, "v": {}}
    assert "predicting eps = 0, measured on an epsilon network" in write_page(summary, tmp_path)
    trains(tmp_path / "late", "epsilon", {200: 1.0, 1000: 0.2})
    late = summarise(tmp_path / "late" / "s")
    assert [dict(late.zero_prediction(row)) for row in late.rows] == [{}]


# --- facts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("done", 64_000), ("done", 64_000)], "Trained on 64,000 images each."),
        ([("done", 64_000), ("running", 8_320)], "The run that is done was trained on 64,000 images."),
        ([("done", 64_000), ("done", 64_000), ("failed", 0)],
         "The runs that are done were trained on 64,000 images each."),
        ([("done", 96_000)], "Trained on 96,000 images."),  # more than it was meant to see when it was typed last
        ([("interrupted", 96_000)], "Trained on 96,000 images."),
        ([("interrupted", 8_320)], "Trained on 8,320 of 64,000 images."),
        ([("interrupted", 8_320), ("running", 32_000), ("failed", 0)], "Trained on 0 to 32,000 of 64,000 images."),
        ([("failed", None)], None),
    ],
)  # fmt: skip
def test_the_images_counted_are_those_that_were_seen(
    tmp_path: Path, runs: list[tuple[str, int | None]], expected: str | None
) -> None:
    for seed, (status, seen) in enumerate(runs):
        write_run(tmp_path, "s", "x0", seed, status=status, lines=2, validations=1, images_seen=seen)
    found = facts(summarise(tmp_path / "s"))
    assert [sentence for sentence in found if "rained" in sentence and " images" in sentence] == [expected] * bool(
        expected
    )


def test_what_must_be_known_first_comes_first(tmp_path: Path) -> None:
    for target in ("epsilon", "x0"):
        run = write_run(tmp_path, "s", target, 0, lines=2, validations=1, settings={"training": {"ema_decay": 0.99}})
        with_final(run, fd__classifier_1k__accuracy=0.31, fd__classifier_1k__chance=0.1)
    summary = summarise(tmp_path / "s")
    for text in (" ".join(as_text(summary).split()), to_markdown(summary), Page(write_page(summary, tmp_path)).text):
        for words in (
            "One learning rate, 0.0002, for all targets: another may change the order",
            "Trained on 64,000 images each.",
            "uses the averaged weights (EMA, decay 0.99); samples by ddim, 50 steps.",
            "distances use is 31 % accurate on held-out images",
            "only 31 % accurate on held-out images (10 % by guessing)",
        ):
            assert words in text


def test_a_good_classifier_is_no_matter_for_a_warning(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "x0", 0, lines=2, validations=1)
    with_final(run, fd__classifier_1k__accuracy=0.9, fd__classifier_1k__chance=0.1)
    assert "guessing" not in " ".join(cautions(summarise(tmp_path / "s")))


def test_a_swept_rate_is_not_called_one_rate(tmp_path: Path) -> None:
    found = " ".join(facts(summarise(rates(tmp_path))))
    assert "Learning rates: 0.0001 and 0.001." in found
    assert "One learning rate" not in found


# --- words -----------------------------------------------------------------------------------------------


def two_targets(root: Path, values: dict[str, list[float]], metric: str = "val/belief_eps") -> Summary:
    for target, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            change_record(write_run(root, "s", target, seed, lines=2, validations=1).record_file, final={metric: value})
    return summarise(root / "s")


def verdict_of(summary: Summary) -> str:
    return " ".join(verdict(summary))


def test_a_lead_that_seeds_support_is_called_clear(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.30, 0.40, 0.50], "v": [0.28, 0.381, 0.479]})
    assert "Prediction error in eps units: v is best; epsilon is clearly worse by 5.3 %." in verdict_of(summary)


def test_a_lead_within_the_scatter_is_none(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.30, 0.40, 0.50], "v": [0.20, 0.45, 0.49]})
    assert "Prediction error in eps units: v and epsilon are not distinguishable." in verdict_of(summary)


def test_rows_on_the_level_of_the_best_do_not_hide_those_clearly_behind(tmp_path: Path) -> None:
    values = {"epsilon": [0.30, 0.31, 0.32], "v": [0.20, 0.21, 0.22], "x0": [0.202, 0.209, 0.222],
              "score": [0.40, 0.41, 0.42]}  # fmt: skip
    (ranking,) = rankings(summary := two_targets(tmp_path, values))
    assert [[row.label for row in rows] for rows in (ranking.leaders, ranking.worse)] == [
        ["v", "x0"],
        ["epsilon", "score"],
    ]
    assert "v and x0 are equal within 1 %; epsilon and score are clearly worse by 48 % or more." in verdict_of(summary)


def test_what_is_clearly_worse_is_decided_after_holms_correction(tmp_path: Path) -> None:
    later = [0.22, 0.225, 0.215]  # t = 4 sqrt(3) on 2 degrees of freedom: p = 0.02, of three rows too much
    (alone,) = rankings(two_targets(tmp_path / "one", {"v": [0.20] * 3, "x0": later}))
    assert [row.label for row in alone.worse] == ["x0"]
    noisy = {"epsilon": [0.2, 0.5, 0.3], "score": [0.6, 0.2, 0.5]}
    (among_three,) = rankings(two_targets(tmp_path / "three", {"v": [0.20] * 3, "x0": later, **noisy}))
    assert among_three.differences[alone.worse[0].name] == alone.differences[alone.worse[0].name]
    assert among_three.worse == ()


def test_a_certain_lead_of_less_than_one_per_cent_is_called_equal(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.3015, 0.4015, 0.5015], "v": [0.30, 0.40, 0.50]})
    (ranking,) = rankings(summary)
    difference = ranking.differences[ranking.tied[0].name]
    assert difference is not None
    assert difference.excludes_zero
    assert "v and epsilon are equal within 1 %." in verdict_of(summary)


def test_with_one_seed_leads_below_five_per_cent_are_called_equal(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.30], "v": [0.31], "x0": [0.33]})
    assert "epsilon and v are equal within 5 %; x0 is worse by 10 %." in verdict_of(summary)
    closer = two_targets(tmp_path / "closer", {"epsilon": [0.30], "v": [0.301]})
    assert "epsilon and v are equal within 1 %." in verdict_of(closer)


def test_a_target_whose_rows_are_all_behind_is_named_once(tmp_path: Path) -> None:
    for target, space, error in (("v", "native", 0.2), ("v", "x0", 0.2), ("epsilon", "native", 0.4),
                                 ("epsilon", "x0", 0.5)):  # fmt: skip
        with_final(write_run(tmp_path, "s", target, 0, space, lines=2, validations=1), val__belief_eps=error)
    assert "both v rows are equal within 1 %" in verdict_of(summarise(tmp_path / "s"))
    assert "both epsilon rows are worse by" in verdict_of(summarise(tmp_path / "s"))


def test_one_seed_gives_no_confidence_interval(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.3], "v": [0.2]})
    assert "One seed gives no confidence interval" in verdict_of(summary)
    assert "n = 1" in as_text(summary)
    assert "one finished seed per row (n = 1): no confidence interval" in write_page(summary, summary.path).lower()


def test_the_number_of_seeds_is_repeated_only_where_it_is_another(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.3, 0.4], "v": [0.2, 0.3]})
    assert "(n = " not in to_markdown(summary)
    change_record(tmp_path / "s" / summary.rows[1].name / "seed=1" / "run.json", final={})
    page = write_page(summarise(tmp_path / "s"), tmp_path)
    assert "(n = 1)" in to_markdown(summarise(tmp_path / "s"))
    assert page.count(">n = 1<") == 1


def test_for_precision_more_is_better(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.3, 0.31], "v": [0.2, 0.21]}, "precision/classifier_1k")
    (ranking,) = rankings(summary)
    assert ranking.best.label == "epsilon"
    assert ranking.gap(ranking.worse[0]) == pytest.approx(0.1 / 0.305)


def test_a_row_with_fewer_seeds_does_not_win_by_luck(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"epsilon": [0.3, 0.4], "v": [0.31, 0.41], "x0": [0.1]})
    assert rankings(summary)[0].best.label == "epsilon"
    assert "Not ranked, for having fewer finished seeds than the others: x0 (1 seed)" in write_page(summary, tmp_path)


def test_a_study_without_a_finished_run_has_no_verdict_but_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, "s", "x0", 0, status="running", progress=0.5)
    (tmp_path / "s" / "v-native-00000000" / "seed=0").mkdir(parents=True)
    summary = summarise(tmp_path / "s")
    assert verdict(summary) == ["No run is done yet, so there is no verdict."]
    assert "n = 1" not in as_text(summary)
    assert "One seed" not in as_text(summary)
    assert "1 stopped, 1 starting" in as_text(summary)
    assert "so far" in write_page(summary, tmp_path)
    for text in (as_text(summary), Page(write_page(summary, tmp_path)).text):
        assert "In brackets: the latest value of runs that are not done" in " ".join(text.split())
        assert "()" not in text
        assert "Bold" not in text
    assert json.loads(to_json(summary))["summary"][0]["n"] == 0


def test_brackets_are_explained_where_there_are_any(tmp_path: Path) -> None:
    write_run(tmp_path, "s", "x0", 0, lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    assert "brackets" not in as_text(summary) + Page(write_page(summary, tmp_path)).text
    write_run(tmp_path, "s", "v", 0, status="interrupted", lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    for text in (as_text(summary), Page(write_page(summary, tmp_path)).text):
        assert "In brackets: the latest value of runs that are not done" in " ".join(text.split())


def test_one_row_alone_is_not_compared_with_itself(tmp_path: Path) -> None:
    summary = two_targets(tmp_path, {"v": [0.3, 0.2]})
    assert verdict(summary) == ["Only one row has finished runs: there is nothing to compare it with yet."]
    for text in (as_text(summary), to_markdown(summary), Page(write_page(summary, tmp_path)).text):
        assert "difference to" not in text
        assert "the baseline (" not in text


def test_what_went_wrong_is_described(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("epsilon", "score"), (0, 1), lines=2, validations=1)
    write_run(tmp_path, "s", "v", 0, status="diverged")
    write_run(tmp_path, "s", "v", 1, status="failed", error="RuntimeError: out of memory")
    with_final(write_run(tmp_path, "s", "x0", 0), val__belief_eps=1.7, val__loss=2.0, val__zero_loss=1.0)
    blank = write_run(tmp_path, "s", "flow", 0)
    with_final(blank, fd__classifier_1k=None)
    sentences = "\n".join(failures(summarise(tmp_path / "s")))
    for words in (
        "for score, more than 5 times the best row's",
        "v diverged in 1 of 2 runs",
        "v failed in 1 of 2 runs: RuntimeError: out of memory",
        "x0 learned nothing",
        "No better, in eps units, than predicting eps = 0, which costs about 1: x0: 1.7",
        "flow is done but has no FD classifier 1k",
    ):
        assert words in sentences
    assert "epsilon" not in sentences


def test_runs_of_different_length_are_not_silently_averaged(tmp_path: Path) -> None:
    write_run(tmp_path, "s", "x0", 0)
    write_run(tmp_path, "s", "v", 0, images_seen=128_000)
    assert "different numbers of images (64,000 and 128,000)" in " ".join(failures(summarise(tmp_path / "s")))


def test_poor_samples_are_listed_with_the_best_row_and_the_floor(tmp_path: Path) -> None:
    for target, distance in (("epsilon", 8.0), ("score", 48.0)):
        run = write_run(tmp_path, "s", target, 0, lines=2, validations=1)
        with_final(run, fd__classifier_1k=distance, fd__classifier_1k__floor=2.0)
    found = " ".join(failures(summarise(tmp_path / "s")))
    assert "FD classifier 1k is 48 for score, more than 5 times the best row's 8 and the floor of 2." in found
    with_final(run, fd__classifier_1k=48.0, fd__classifier_1k__floor=2.0, fd__classifier_1k__floor_count=359.0)
    assert "and therefore is too high" in " ".join(cautions(summarise(tmp_path / "s")))


def test_rows_that_know_nothing_share_one_sentence(tmp_path: Path) -> None:
    for target, error in (("epsilon", 0.5), ("score", 1.5), ("x0", 1.7)):
        with_final(write_run(tmp_path, "s", target, 0, lines=2, validations=1), val__belief_eps=error)
    found = [sentence for sentence in failures(summarise(tmp_path / "s")) if "No better, in eps units" in sentence]
    assert len(found) == 1
    assert "x0: 1.7 and score: 1.5" in found[0]


def test_a_floor_over_too_few_images_is_pointed_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "x0", 0)
    with_final(run, fd__classifier_1k__floor_count=360.0, fd__classifier_1k__unreliable=1.0)
    limits = " ".join(cautions(summarise(tmp_path / "s")))
    assert "rests on 360 held-out images" in limits
    assert "FD classifier 1k is unreliable here" in limits


def test_the_question_follows_from_what_varies(tmp_path: Path, summary: Summary) -> None:
    assert question(summary) == "What should the network be asked to predict?"
    write_study(tmp_path, "s", ("x0",), (0,), spaces=("native", "v"), lines=2, validations=1)
    assert question(summarise(tmp_path / "s")) == "What does space change, for target x0?"
    write_study(tmp_path, "t", ("x0", "v"), (0,), spaces=("native", "v"), lines=2, validations=1)
    assert question(summarise(tmp_path / "t")) == (
        "What should the network be asked to predict, and what does space change?"
    )


# --- tables ----------------------------------------------------------------------------------------------


def reject(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_the_json_is_strict_and_has_what_others_build_on(study: Path) -> None:
    change_record(next(study.glob("x0*/seed=0/run.json")), loss_scale=float("nan"))
    document = json.loads(to_json(summarise(study)), parse_constant=reject)
    assert {"runs", "summary"} <= document.keys()
    assert len(document["runs"]) == 15
    assert {"target", "seed", "config_hash", "status", "command", "final"} <= document["runs"][0].keys()
    rows = {(row["choices"]["target"], row["metric"]): row for row in document["summary"]}
    row = rows["v", "fd/classifier_1k"]
    assert row["low"] < row["mean"] < row["high"]
    assert (row["n"], row["floor"]) == (3, 2.31)
    assert {"mean", "low", "high", "n"} <= row["difference"].keys()
    assert row["difference"]["baseline"] == "epsilon"
    assert rows["epsilon", "fd/classifier_1k"]["difference"] is None
    assert rows["v", "val/loss"]["difference"] is None, "losses of two targets are in two units"


def test_the_csv_has_the_same_numbers(summary: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    (row,) = [row for row in rows if row["target"] == "v" and row["metric"] == "val/belief_eps"]
    cell = summary.cell(next(r for r in summary.rows if r.label == "v"), "val/belief_eps")
    assert cell.value is not None
    assert cell.difference is not None
    assert float(row["mean"]) == cell.value.mean
    assert float(row["difference"]) == cell.difference.mean
    assert (int(row["n"]), float(row["difference_p_holm"])) == (3, cell.p_holm)


HOSTILE = "<script>alert('|x|')</script>"


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = write_run(tmp_path, "s", "x0", seed)
        change_record(run.record_file, target=HOSTILE, command=f"diffexp {HOSTILE}", error="[bold]no[/nope]",
                      study="../..", device="</script><img src=x>")  # fmt: skip
    hostile = run.path.parent.rename(tmp_path / "s" / "<!--<script>'\"")
    with_final(write_run(tmp_path, "s", "epsilon", 0), **{"fd__<img src=x>": 1.0})
    summary = summarise(tmp_path / "s")
    page = write_page(summary, tmp_path / "s")
    parsed = Page(page)
    assert [kind for kind in parsed.scripts if kind == "script"] == ["script"] * 3
    assert "<script>alert" not in page
    assert "<!--" not in page[page.index('id="drawings"') :]
    assert f"./{quote(hostile.name)}/seed=0/run.json" in parsed.links
    drawn = [figure for figure in all_figures(summary) if figure.name == "seeds"]
    assert "<" not in str([variant.layout for variant in drawn[0].variants])
    assert not [source for source in parsed.sources if not source.startswith("data:")]
    assert HOSTILE in parsed.text
    (line,) = [line for line in to_markdown(summary).splitlines() if line.startswith("| &lt;script")]
    assert line.replace("\\|", "").count("|") == 11
    buffer = io.StringIO()
    print_summary(summary, Console(file=buffer, width=200))
    assert HOSTILE in buffer.getvalue()


def test_a_narrow_terminal_gets_errors_and_samples_below_each_other(summary: Summary) -> None:
    narrow = as_text(summary, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert len([line for line in narrow.splitlines() if line.startswith(" scaled_noise ")]) == 2
    wide = as_text(summary, width=120)
    assert len([line for line in wide.splitlines() if line.startswith(" scaled_noise ")]) == 1


def test_a_terminal_never_breaks_a_name(tmp_path: Path) -> None:
    long = "logit_normal_with_a_long_name"
    for target in ("epsilon", "unit_step_noise"):
        for times in (long, "uniform"):
            settings = {"times": {"_target_": times}}
            write_run(tmp_path, "s", target, 0, times=times, lines=2, validations=1, settings=settings)
    summary = summarise(tmp_path / "s")
    text = as_text(summary, width=70)
    assert max(map(len, text.splitlines())) <= 70
    assert len([line for line in text.splitlines() if line.startswith(f" unit_step_noise  {long} ")]) >= 2
    numbered = as_text(summary, width=50)
    assert f"#3 unit_step_noise, times {long}" in " ".join(numbered.split())
    assert len([line for line in numbered.splitlines() if line.startswith(" #3 ")]) >= 2


# --- the page --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.cells: list[tuple[str, bool]] = []
        self._open: list[str] = []
        self._table = ""
        self._linked = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values: dict[str, Any] = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        self.scripts += [tag] if tag == "script" else []
        self._open.append(tag)
        if tag == "div" and "summary" in (values.get("class") or "").split():
            self._table = "summary"
        if tag == "a":
            self._linked = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""
        if tag == "a":
            self._linked = False
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" not in self._open and "style" not in self._open:
            self.text += data
        if self._table and {"td", "tfoot"} & set(self._open):
            self.cells.append((data, self._linked))


@pytest.fixture(scope="module")
def page(summary: Summary) -> Page:
    return Page(write_page(summary, summary.path))


def test_the_page_fetches_nothing(summary: Summary, page: Page) -> None:
    text = write_page(summary, summary.path)
    assert text.count("* plotly.js v") == 1
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(link.startswith(("#", "./")) for link in page.links)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_leads_somewhere(summary: Summary, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (summary.path / unquote(link)).is_file()


def test_every_number_of_the_summary_is_linked_to_its_runs(page: Page) -> None:
    numbers = [(text, linked) for text, linked in page.cells if any(sign.isdigit() for sign in text)]
    assert len(numbers) > 5 * 7 * 2
    assert [text for text, linked in numbers if not linked] == []


def test_a_page_elsewhere_still_links_to_the_runs(summary: Summary, tmp_path: Path) -> None:
    links = [link for link in Page(write_page(summary, tmp_path)).links if link.endswith("run.json")]
    assert len(links) == 15
    assert all((tmp_path / unquote(link)).resolve().is_file() for link in links)


def test_every_grid_leads_to_its_file(summary: Summary, page: Page) -> None:
    assert len([link for link in page.links if link.endswith("samples/final.png")]) == 5


def test_the_legend_is_above_the_table(page: Page) -> None:
    assert page.text.index("d: difference to the baseline (epsilon") < page.text.index("seeds done")


def test_a_command_that_leaves_a_sweep_is_explained(tmp_path: Path, page: Page) -> None:
    assert "hydra.mode=RUN" not in page.text
    write_run(tmp_path, "s", "x0", 0, command="diffexp train experiment=quick hydra.mode=RUN")
    assert "hydra.mode=RUN: this one run, where" in Page(write_page(summarise(tmp_path / "s"), tmp_path)).text


def test_the_page_has_the_command_of_each_run(page: Page) -> None:
    assert "diffexp train study=s target=v objective.space=native optimizer.lr=0.0002 seed=2" in page.text
    for words in ("1a2b3c4d5e6f (clean)", "torch 2.13.0", "cpu (2 threads)", "1,234,567", "64,000"):
        assert words in page.text


def test_the_page_says_that_raw_losses_cannot_be_compared(page: Page) -> None:
    assert "Raw losses of different targets are in different units and cannot be compared" in page.text


def all_figures(summary: Summary) -> list[Figure]:
    figures = draw_figures(Study.of(summary, style_of(summary.rows)))
    assert not [figure.caption for figure in figures if not figure.variants]
    return figures


def test_plotly_knows_every_entry_of_the_figures(summary: Summary, tmp_path: Path) -> None:
    swept = summarise(rates(tmp_path))
    names = [figure.name for figure in all_figures(swept)]
    assert names == ["seeds", "rates", "errors", "bands", "weight", "loss"]
    for figure in [*all_figures(summary), *all_figures(swept)]:
        for variant in figure.variants:
            go.Figure({"data": variant.data, "layout": variant.layout})  # raises on an unknown or wrong entry


def test_no_axis_carries_raw_losses_of_two_targets(summary: Summary) -> None:
    (losses,) = [figure for figure in all_figures(summary) if figure.name == "loss"]
    assert losses.variants[0].name == "relative to zero prediction"
    for variant in losses.variants[1:]:
        assert len({trace["name"] for trace in variant.data}) == 1
    relative = losses.variants[0].data
    assert all(0.05 < trace["y"][-1] < 0.2 for trace in relative), "all synthetic losses end at a tenth of zero's"


def test_a_target_has_one_colour_in_every_figure_and_study(summary: Summary, tmp_path: Path) -> None:
    colours: dict[str, set[str]] = {}
    write_study(tmp_path, "s", ("v", "mine"), (0,), lines=2, validations=1)
    for study in (summary, summarise(tmp_path / "s")):
        for figure in all_figures(study):
            if figure.name != "seeds":
                for trace in (trace for variant in figure.variants for trace in variant.data):
                    colours.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert {len(found) for found in colours.values()} == {1}
    assert len({next(iter(found)) for found in colours.values()}) == len(colours)


def test_the_curves_hold_the_newest_bands_and_thin_training(tmp_path: Path) -> None:
    write_run(tmp_path, "s", "x0", 0, lines=1000, validations=3)
    (run,) = summarise(tmp_path / "s").runs
    curves = read_curves(run)
    assert len(curves.loss[0]) <= 80
    assert curves.loss[0][-1] == 64_000
    assert by_band(curves.newest, "val/belief_eps")[-2.0, 0.0] == run.final["val/belief_eps/lam_-2_0"]
    assert len(curves.errors["eps"][0]) == 3


def test_a_large_study_is_drawn_with_fewer_seeds_and_says_so(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("epsilon", "x0", "v"), range(45), lines=1, validations=1, images=False)
    summary = summarise(tmp_path / "s")
    (errors,) = [figure for figure in all_figures(summary) if figure.name == "errors"]
    assert len(errors.variants[0].data) == 120
    assert "Of 135 runs the first seeds are drawn, 120 lines" in errors.caption


def test_pictures_that_are_none_are_not_embedded(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "x0", 0)
    (run.samples / "final.png").write_text("<svg onload=alert(1)>")
    text = write_page(summarise(tmp_path / "s"), tmp_path / "s")
    assert "not a PNG file" in text
    assert len([source for source in Page(text).sources if source]) == 1  # the real images


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_leaves_page_and_tables_in_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, "s", ("epsilon", "x0"), (0, 1), lines=2, validations=1)
    assert main(["s", "--root", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "What should the network be asked to predict?" in output
    assert "report.html" in output.splitlines()[-1]
    assert {"report.html", "summary.csv", "summary.md"} <= {path.name for path in study.iterdir()}
    assert main(["s", "--root", str(tmp_path)]) == 0, "its own files are no runs"


def test_json_on_standard_output_is_json_alone_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, "s", ("epsilon", "x0"), (0, 1), lines=2, validations=1)
    before = sorted(study.rglob("*"))
    assert main([str(study), "--format", "json", "--baseline", "x0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["difference"]["baseline"] for row in document["summary"] if row["difference"]} == {"x0"}
    assert sorted(study.rglob("*")) == before


@pytest.mark.parametrize("kind", ["table", "html", "csv", "markdown", "json"])
def test_each_format_goes_to_a_file(study: Path, tmp_path: Path, kind: str) -> None:
    assert main([str(study), "--format", kind, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").stat().st_size > 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--root", "."], "there is no study nothing"),
        (["."], "holds no runs"),
        (["s", "--baseline", "y0"], "no run has target=y0"),
        (["s", "--output", "x.html"], "without --format"),
        (["s", "--format", "html", "--output", "new/x.html"], "--output new/x.html: there is no folder new"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_study(tmp_path / "inside", "s", ("epsilon",), (0,), lines=1, validations=1)
    (tmp_path / "inside" / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "inside" / ("empty" if arguments == ["."] else ""))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("diffexp report: ")
    assert words in error
    assert len(error.splitlines()) == 1


def test_excess_over_a_known_optimum_stands_in_for_the_prediction_error(tmp_path: Path) -> None:
    known = belief(0.05)
    for target, error in (("epsilon", 0.09), ("v", 0.07)):
        excess = {key.replace("belief", "excess"): value for key, value in belief(error - 0.05).items()}
        final = {"val/loss": 0.1, "val/zero_loss": 1.0, "val/bits_per_dim": error, **belief(error), **excess}
        optimum = {**known, "val/bits_per_dim": 0.01}
        write_run(tmp_path, "s", target, 0, final=final, optimum=optimum)
    study = summarise(tmp_path / "s")
    shown = {metric.title: study.cell(study.rows[0], metric) for metric in study.metrics}
    assert {"excess error, eps", "excess error, score", "bits/dim"} <= shown.keys()
    assert not any("prediction" in title for title in shown), "it is the same, plus the irreducible part"
    assert shown["bits/dim"].floor == 0.01
    assert study.cell(study.rows[0], "val/belief_eps").floor == 0.05
    assert "Excess over the optimal prediction in eps, x0, v and score units" in " ".join(verdict(study))
    assert "the optimal prediction has an error of 0.05 in eps" in " ".join(facts(study))
    records = json.loads(to_json(study))["summary"]
    assert {"val/belief_eps", "val/excess_eps"} <= {record["metric"] for record in records}
    (figure,) = [figure for figure in all_figures(study) if figure.name == "bands"]
    (bands,) = [v for v in figure.variants if v.name == "eps"]
    (best,) = [trace for trace in bands.data if trace["name"] == "optimal prediction"]
    assert best["y"][0] == pytest.approx(known["val/belief_eps/lam_-10_-8"], rel=1e-3)
    assert any(v.name == "excess, eps" for v in figure.variants)


def test_leads_in_bits_are_given_in_bits(tmp_path: Path) -> None:
    """A density's bits may be negative, and have no zero to be a share of."""
    for target, bits in (("epsilon", -1.58), ("v", -1.55), ("x0", 0.4)):
        write_run(tmp_path, "s", target, 0, final={"val/bits_per_dim": bits})
    assert "bits/dim: epsilon and v are equal within 0.05 bits/dim; x0 is worse by 1.98 bits/dim." in verdict_of(
        summarise(tmp_path / "s")
    )
