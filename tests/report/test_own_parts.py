"""Targets, metrics and figures of one's own: every one is shown, and none breaks a report."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from synthetic import change_record, write_run, write_study

from diffexp.cli.report import main
from diffexp.errors import UserError
from diffexp.report import rows, style
from diffexp.report.export import to_csv, to_json
from diffexp.report.figures import Figure, Study, Variant, draw_figures, figure, load_figures
from diffexp.report.figures import base as registry
from diffexp.report.markdown import to_markdown
from diffexp.report.metrics import Metric, comparable_metrics
from diffexp.report.notes import cautions
from diffexp.report.page import write_page
from diffexp.report.ranking import rankings
from diffexp.report.style import style_of
from diffexp.report.summary import Summary, summarise
from diffexp.report.terminal import as_text


def texts(summary: Summary) -> dict[str, str]:
    return {
        "terminal": as_text(summary, width=400),
        "page": write_page(summary, summary.path),
        "markdown": to_markdown(summary),
        "csv": to_csv(summary),
        "json": to_json(summary),
    }


def figures(summary: Summary) -> list[Figure]:
    return draw_figures(Study.of(summary, style_of(summary.rows)))


# Targets.


def test_thirty_targets_have_a_look_of_their_own_each(tmp_path: Path) -> None:
    names = [f"mine_{number}" for number in range(30)]
    write_study(tmp_path, "s", names, (0,), lines=2, validations=1, images=False)
    summary = summarise(tmp_path / "s")
    found = style_of(summary.rows)
    assert len({(found.colours[row.name], found.markers[row.name]) for row in summary.rows}) == 30
    for text in texts(summary).values():
        assert all(name in text for name in names)


def test_a_thirteenth_known_target_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, style):
        monkeypatch.setattr(module, "TARGETS", (*rows.TARGETS, "thirteenth"))
    write_study(tmp_path, "s", ("epsilon", "thirteenth", "mine"), (0,), lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    assert [row.label for row in summary.rows] == ["epsilon", "thirteenth", "mine"]
    found = style_of(summary.rows)
    assert len({(found.colours[row.name], found.markers[row.name]) for row in summary.rows}) == 3
    assert "thirteenth" in write_page(summary, tmp_path)


# Metrics.


def measured(root: Path, **metrics: list[float | None]) -> Summary:
    """Targets epsilon and v, with one value each of every metric; "__" stands for "/"."""
    for place, target in enumerate(("epsilon", "v")):
        run = write_run(root, "s", target, 0, lines=2, validations=1)
        own = {key.replace("__", "/"): values[place] for key, values in metrics.items()}
        change_record(run.record_file, final=run.record["final"] | own)
    return summarise(root / "s")


def test_any_number_that_a_run_ends_with_is_a_column(tmp_path: Path) -> None:
    summary = measured(
        tmp_path, val__x=[0.123, -0.456], own__thing=[1.5e30, 2.5e30], test__loss=[7.25, None], plain=[0.0, 3.0],
        a__b__c=[11.0, 12.0], val__nothing=[None, None],
    )  # fmt: skip
    own = ["a/b/c", "own/thing", "plain", "test/loss", "val/x"]
    assert [metric.key for metric in summary.metrics][-5:] == own
    for kind, text in texts(summary).items():
        assert [key for key in own if key not in text] == [], kind
        assert "1.5e+30" in text, kind
    (row,) = [row for row in csv.DictReader(io.StringIO(to_csv(summary)))
              if (row["target"], row["metric"]) == ("v", "val/x")]  # fmt: skip
    assert (float(row["mean"]), float(row["difference"])) == (-0.456, pytest.approx(-0.579))
    seeds = next(figure for figure in figures(summary) if figure.name == "seeds")
    assert set(own) <= {variant.name for variant in seeds.variants}


def test_only_what_qualifies_a_metric_that_is_there_is_no_column() -> None:
    keys = ["own/floor", "fd/x/floor", "fd/x/floor/unreliable", "own/thing", "own/thing/stderr", "mine/chance",
            "bits_per_dim/vlb", "bits_per_dim/vlb/kl", "bits_per_dim/flow/estimator_stderr", "own/thing/lam_-2_0",
            "kl/pixels"]  # fmt: skip
    assert [metric.key for metric in comparable_metrics(keys)] == [
        "bits_per_dim/vlb", "kl/pixels", "mine/chance", "own/floor", "own/thing",
    ]  # fmt: skip


def test_a_metric_without_a_known_direction_is_shown_and_not_ranked(tmp_path: Path) -> None:
    summary = measured(tmp_path, own__thing=[1.0, 2.0])
    assert "own/thing" not in {ranking.metric.key for ranking in rankings(summary)}
    assert Metric("own/thing").higher_is_better is None
    assert "diffexp report --higher own/thing or --lower own/thing" in " ".join(cautions(summary))
    assert summary.cell(summary.rows[1], "own/thing").difference


@pytest.mark.parametrize(("higher", "best"), [(True, "v"), (False, "epsilon")])
def test_a_declared_direction_ranks(tmp_path: Path, higher: bool, best: str) -> None:
    measured(tmp_path, own__thing=[1.0, 2.0])
    summary = summarise(tmp_path / "s", directions={"own/thing": higher})
    (ranking,) = [ranking for ranking in rankings(summary) if ranking.metric.key == "own/thing"]
    assert ranking.best.label == best
    assert "not ranked by own/thing" not in " ".join(cautions(summary))


def test_a_rate_is_chosen_by_a_metric_of_known_direction_alone(tmp_path: Path) -> None:
    for rate, value in ((1e-4, 1.0), (1e-3, 2.0)):
        run = write_run(tmp_path, "s", "v", 0, rate=rate, lines=2, validations=1)
        change_record(run.record_file, final={"own/thing": value})
    with pytest.raises(UserError, match="Add --higher own/thing or --lower own/thing"):
        summarise(tmp_path / "s", chosen_by="own/thing")
    best = summarise(tmp_path / "s", chosen_by="own/thing", directions={"own/thing": True}).best_rate
    assert best
    assert [row.label for row in best.rows] == ["lr 0.001"]


def test_the_absence_of_the_losses_is_explained(tmp_path: Path) -> None:
    page = write_page(measured(tmp_path, own__thing=[1.0, 2.0]), tmp_path)
    assert "being in units of the target&#x27;s own: the training loss, val/loss (the loss on held-out images)" in page


# Figures.


@pytest.fixture
def no_lasting_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


@pytest.mark.usefixtures("no_lasting_figures")
def test_a_function_under_the_decorator_is_a_figure_of_the_page(tmp_path: Path) -> None:
    @figure("Seeds per row", order=15)
    def counts(study: Study) -> tuple[str, list[Variant]]:
        trace = {"type": "bar", "x": [row.label for row in study.summary.rows], "y": [1, 1]}
        return "How many seeds each row has.", [Variant("all", [trace], {})]

    write_study(tmp_path, "s", ("epsilon", "v"), (0,), lines=2, validations=1)
    summary = summarise(tmp_path / "s")
    assert [found.name for found in figures(summary)][:2] == ["seeds", "counts"]
    page = write_page(summary, tmp_path)
    assert 'id="plot-counts"' in page
    assert "<h3>Seeds per row</h3>" in page
    assert "How many seeds each row has." in page


@pytest.mark.usefixtures("no_lasting_figures")
def test_a_figure_that_raises_costs_itself_alone(tmp_path: Path) -> None:
    @figure("Broken")
    def broken(study: Study) -> tuple[str, list[Variant]]:
        raise ZeroDivisionError("no rows <b>")

    write_study(tmp_path, "s", ("epsilon", "v"), (0,), lines=2, validations=1)
    page = write_page(summarise(tmp_path / "s"), tmp_path)
    assert "Not drawn: ZeroDivisionError: no rows &lt;b&gt;" in page
    assert 'id="plot-seeds"' in page
    assert 'id="plot-broken"' not in page


FILE = """
from diffexp.report.figures import Study, Variant, figure

@figure("Mine")
def mine(study: Study):
    return "From a file.", [Variant("all", [{"x": [1], "y": [2]}], {})]
"""


@pytest.mark.usefixtures("no_lasting_figures")
def test_a_file_of_figures_is_named_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, "s", ("epsilon",), (0,), lines=2, validations=1)
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "wrong.py").write_text("1 / 0")
    words = [str(tmp_path / "s"), "--format", "html", "--figure"]
    assert main([*words, str(tmp_path / "mine.py")]) == 0
    assert "<h3>Mine</h3>" in capsys.readouterr().out
    for name, why in (("wrong.py", "ZeroDivisionError: division by zero"), ("none.py", "there is no Python file")):
        assert main([*words, str(tmp_path / name)]) == 2
        assert why in capsys.readouterr().err
    with pytest.raises(UserError):
        load_figures(tmp_path)


# Reading.


def test_each_metrics_file_is_opened_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, "s", ("epsilon", "v"), (0, 1), rates=(1e-4, 1e-3), lines=3, validations=2)
    write_run(tmp_path, "s", "x0", 0, status="interrupted")
    opened: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open" and str(arguments[0]).endswith("metrics.jsonl"):
            opened.append(str(arguments[0]))

    sys.addaudithook(listen)
    assert main([str(study)]) == 0
    listening = False
    assert len(opened) == len(set(opened)) == 9


def test_no_metrics_file_is_opened_for_the_numbers_of_finished_runs(tmp_path: Path) -> None:
    write_study(tmp_path, "s", ("epsilon", "v"), (0,), lines=3, validations=2)
    summary = summarise(tmp_path / "s")
    assert json.loads(to_json(summary))["summary"]
    assert summary.curves == type(summary.curves)()
