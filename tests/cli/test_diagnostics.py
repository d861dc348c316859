"""`diffexp evaluate diagnostics=gradients`: from a run's directory to numbers, a table and a page."""

import json
import re
from pathlib import Path

import pytest
import torch
from test_sample_evaluate import TINY

from diffexp.cli.main import main
from diffexp.runs.study import Run, read_study

FEW = (
    "metric=none",
    "likelihood.count=0",
    "diagnostics=gradients",
    "diagnostics.batches=4",
    "diagnostics.batch_size=8",
)


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """By target."""
    root = tmp_path_factory.mktemp("measured")
    targets = "epsilon,scaled_noise,unit_step_noise"
    line = ["train", "-m", f"target={targets}", f"root={root}", "study=s", *TINY, "metric=none", "hydra/launcher=basic"]
    assert main([word for word in line if not word.startswith("metric.")]) == 0
    return {str(run.record["target"]): run for run in read_study(root / "s")}


def measured(run: Run, folder: Path, *words: str) -> dict:
    assert main(["evaluate", f"run={run.path}", f"out={folder}/found.json", *FEW, *words]) == 0
    return json.loads((folder / "found.json").read_text())["diagnostics"]["gradients"]


def test_a_runs_gradient_is_printed_written_and_drawn(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["unit_step_noise"]
    found = measured(run, tmp_path)
    said = capsys.readouterr().out
    assert f"{tmp_path}/gradients.html" in said
    assert [(band["low"], band["high"]) for band in found["bands"]] == [(low, low + 2) for low in range(-12, 10, 2)]
    for band in found["bands"]:
        (row,) = re.findall(rf"^ *{band['low']:g} to {band['high']:g} .*$", said, re.M)
        assert f"{band['variance']:.3g}" in row
        assert f"{100 * band['label_noise']:.4g} %" in row
    assert len(found["cosine"]) == len(found["bands"])
    assert (found["batches"], found["batch_size"], found["weights"]) == (4, 8, "trained")
    assert found["loss_scale"] == run.record["loss_scale"]
    page = (tmp_path / "gradients.html").read_text()
    assert "unit_step_noise, native" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    assert "Plotly.newPlot" in page


def test_fresh_weights_are_those_that_training_began_with(runs: dict[str, Run], tmp_path: Path) -> None:
    """The last layer starts at zero, so all that is seen is the label: epsilon's is unit noise at every noise level,
    and scaled_noise is asked for sigma times as much on the same draws.
    """
    (fresh, scaled) = (measured(runs[name], tmp_path, "diagnostics.fresh=true") for name in ("epsilon", "scaled_noise"))
    trained = measured(runs["epsilon"], tmp_path)
    assert fresh["weights"] == "fresh"
    assert fresh["whole"]["variance"] != trained["whole"]["variance"]
    for band, other in zip(fresh["bands"], scaled["bands"], strict=True):
        sigma = torch.sigmoid(torch.tensor([-band["high"], -band["low"]])).sqrt()  # least and most
        ratio = other["variance"] * scaled["loss_scale"] ** 2 / (band["variance"] * fresh["loss_scale"] ** 2)
        assert 0.99 * sigma[0] ** 2 < ratio < 1.01 * sigma[1] ** 2


def test_nothing_is_diagnosed_unless_asked(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["epsilon"]
    assert main(["evaluate", f"run={run.path}", f"out={tmp_path}/e.json", "metric=none", "likelihood.count=0"]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["diagnostics"] == {}
    assert not (tmp_path / "gradients.html").exists()


REFUSED = {
    "diagnostics.batches=2": "batches",
    "diagnostics.batch_size=0": "batch_size",
    "diagnostics=gradinets": "Did you mean gradients?",
    "diagnostics.bathces=9": "Did you mean diagnostics.batches?",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_mistake_is_one_message_before_any_work(
    runs: dict[str, Run], typed: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [typed] if "=gradinets" in typed else ["diagnostics=gradients", typed]
    assert main(["evaluate", f"run={runs['epsilon'].path}", f"out={tmp_path}/e.json", "metric=none", *words]) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("diffexp evaluate: error: ")
    assert REFUSED[typed] in told.err
    assert told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
