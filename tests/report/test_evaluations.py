"""What `diffexp evaluate` measured joins the report, as rows of target, sampler and network evaluations."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_run

from diffexp.report.evaluations import evaluated_metrics, sampler_rows, weights_rows
from diffexp.report.export import to_json
from diffexp.report.figures import Study, draw_figures
from diffexp.report.markdown import to_markdown
from diffexp.report.page import write_page
from diffexp.report.statistics import mean_over_seeds
from diffexp.report.style import style_of
from diffexp.report.summary import Summary, summarise
from diffexp.report.terminal import as_text
from diffexp.runs.directory import RunDirectory


def evaluated(run: RunDirectory, name: str, distance: float, **changes: Any) -> None:
    record: dict[str, Any] = {
        "sampler": "ddim", "steps": 50, "eta": 0.0, "grid": "time", "clip": True, "nfe": 50, "weights": "last",
        "step": 500, "settings": {"sampler": {"_target_": "diffexp.samplers.Ddim", "steps": 50, "eta": 0.0}},
        "metrics": {"fd/classifier_1k": distance, "fd/classifier_1k/floor": 1.5, "val/bits_per_dim": 3.5},
        "created": "2026-11-28T11:10:34+00:00", "command": "diffexp evaluate",
    }  # fmt: skip
    folder = run.path / "evaluations"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record | changes))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two targets, two seeds, DDIM at 10 and 50 evaluations and Heun at 19."""
    for target, base in (("epsilon", 8.0), ("v", 6.0)):
        for seed in (0, 1):
            run = write_run(tmp_path, "s", target, seed, lines=2, validations=1, images=False)
            evaluated(run, "ddim-50", base + seed)
            evaluated(run, "ddim-10", 2 * base + seed, steps=10, nfe=10)
            heun: dict[str, Any] = {"sampler": "heun", "steps": 10, "eta": None, "grid": "karras", "nfe": 19}
            evaluated(run, "heun-10", base - 1 + seed, **heun)
    return tmp_path / "s"


def places(summary: Summary) -> list[tuple[str, str, int | None]]:
    return [(each.row.label, each.sampler, each.nfe) for each in sampler_rows(summary)]


def test_there_is_a_row_for_each_target_sampler_and_number_of_evaluations(study: Path) -> None:
    summary = summarise(study)
    assert places(summary) == [
        ("epsilon", "ddim", 10), ("epsilon", "ddim", 50), ("epsilon", "heun", 19),
        ("v", "ddim", 10), ("v", "ddim", 50), ("v", "heun", 19),
    ]  # fmt: skip
    (metric,) = evaluated_metrics(summary, of_samples=True)
    cell = sampler_rows(summary)[-1].cell(metric)
    assert cell.value == mean_over_seeds([5.0, 6.0])
    assert cell.floor == 1.5


def test_terminal_page_and_markdown_have_the_table(study: Path) -> None:
    summary = summarise(study)
    interval = "5.5 [\N{MINUS SIGN}0.9, 11.9]"
    assert f"| v | heun | 19 | 2 | **{interval}** |" in to_markdown(summary)
    (line,) = [line for line in as_text(summary).splitlines() if line.split()[:2] == ["v", "heun"]]
    assert line.split() == ["v", "heun", "19", "2", "5.5"]
    page = write_page(summary, study)
    assert "Samples, by sampler" in page
    assert page.count("<td>19</td>") == 2
    assert "fd/classifier_1k" not in to_markdown(summary)


def test_what_does_not_depend_on_the_sampler_has_a_table_of_its_own(study: Path) -> None:
    summary = summarise(study)
    assert [(each.row.label, each.sampler, each.nfe) for each in weights_rows(summary)] == [
        ("epsilon", "last", None),
        ("v", "last", None),
    ]
    assert "| v | last | 2 | 3.5 [3.5, 3.5] |" in to_markdown(summary).replace("[3.5000, 3.5000]", "[3.5, 3.5]")


def test_settings_are_named_where_they_distinguish(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "v", 0, lines=2, validations=1)
    evaluated(run, "a", 1.0)
    evaluated(run, "b", 2.0, eta=1.0)
    evaluated(run, "c", 3.0, eta=1.0, clip=False)
    evaluated(run, "d", 4.0, steps=25)  # two of 50 evaluations that differ in their steps
    evaluated(run, "e", 5.0, sampler="ancestral", eta=None, settings={"sampler": {"variance": "beta"}})
    evaluated(run, "f", 6.0, sampler="ancestral", eta=None, settings={"sampler": {"variance": "optimal"}})
    assert [sampler for _, sampler, _ in places(summarise(tmp_path / "s"))] == [
        "ancestral, variance beta, clip True",
        "ancestral, variance optimal, clip True",
        "ddim, steps 25, eta 0, clip True",
        "ddim, steps 50, eta 0, clip True",
        "ddim, steps 50, eta 1, clip False",
        "ddim, steps 50, eta 1, clip True",
    ]


def test_the_newest_weights_of_a_run_count(tmp_path: Path) -> None:
    run = write_run(tmp_path, "s", "v", 0, lines=2, validations=1)
    evaluated(run, "a", 1.0, step=500)
    evaluated(run, "b", 2.0, step=400)
    summary = summarise(tmp_path / "s")
    (metric,) = evaluated_metrics(summary, of_samples=True)
    (row,) = sampler_rows(summary)
    assert row.cell(metric).value == mean_over_seeds([1.0])


def test_a_run_that_is_not_done_enters_no_mean(tmp_path: Path) -> None:
    evaluated(write_run(tmp_path, "s", "v", 0, status="interrupted", lines=2, validations=1), "a", 1.0)
    summary = summarise(tmp_path / "s")
    (metric,) = evaluated_metrics(summary, of_samples=True)
    (row,) = sampler_rows(summary)
    assert (row.cell(metric).value, row.cell(metric).so_far) == (None, 1.0)
    assert "(1)" in as_text(summary)


def test_a_metric_over_nfe_is_drawn_where_there_are_two(study: Path, tmp_path: Path) -> None:
    summary = summarise(study)
    (figure,) = [f for f in draw_figures(Study.of(summary, style_of(summary.rows))) if f.name == "samplers"]
    (variant,) = figure.variants
    assert variant.name == "FD classifier 1k"
    assert [(trace["name"], trace["x"], trace["y"]) for trace in variant.data][:2] == [
        ("epsilon, ddim", [10, 50], [16.5, 8.5]),
        ("epsilon, heun", [19], [7.5]),
    ]
    evaluated(write_run(tmp_path / "one", "s", "v", 0, lines=2, validations=1), "a", 1.0)
    one = summarise(tmp_path / "one" / "s")
    assert "samplers" not in {figure.name for figure in draw_figures(Study.of(one, style_of(one.rows)))}


def test_the_json_has_them_by_run_and_summed_up(study: Path) -> None:
    document = json.loads(to_json(summarise(study)))
    assert [each["name"] for each in document["runs"][0]["evaluations"]] == ["ddim-10", "ddim-50", "heun-10"]
    distances = [each for each in document["evaluations"] if each["metric"] == "fd/classifier_1k"]
    (record,) = [each for each in distances if (each["choices"]["target"], each["nfe"]) == ("v", 19)]
    assert (record["sampler"], record["n"], record["mean"], record["floor"]) == ("heun", 2, 5.5, 1.5)


DEEP = b'{"sampler": "a", "nfe": 3, "step": 1, "metrics": {"fd/x_1k": 1}, "settings": %s}' % (
    b'{"a":' * 700 + b"1" + b"}" * 700
)
HOSTILE = [DEEP, b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"sampler": {}, "metrics": []}',
           b'{"sampler": "a", "step": "x", "settings": {}, "metrics": {"fd/x_1k": 1}}',
           b'{"sampler": "<b>", "nfe": 1e400, "step": 1, "settings": {"sampler": [1]}, "metrics": {"fd/x_1k": 1}}',
           b'{"sampler": "a", "nfe": 3, "step": 1, "settings": 7, "metrics": {"fd/x_1k": "many", "": 3, "a": NaN}}',
           ]  # fmt: skip


def test_a_stray_or_broken_file_costs_itself_alone(study: Path) -> None:
    folder = next(study.glob("v-*/seed=0")) / "evaluations"
    for place, text in enumerate(HOSTILE):
        (folder / f"broken-{place}.json").write_bytes(text)
    (folder / "folder.json").mkdir()
    (folder / "outside.json").symlink_to("/etc/passwd")
    (folder / "notes.txt").write_text("mine")
    summary = summarise(study)
    assert [nfe for label, sampler, nfe in places(summary) if label == "v" and sampler.startswith("heun")] == [19]
    for text in (write_page(summary, study), to_markdown(summary), as_text(summary), to_json(summary)):
        assert "root:x:" not in text
        assert "<b></b>" not in text
