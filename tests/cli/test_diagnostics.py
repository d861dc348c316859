"""`diffexp evaluate diagnostics=gradients`: from a run's directory to numbers, a table and a page."""

import json
import re
from pathlib import Path

import pytest
import torch

from diffexp.cli.main import main
from diffexp.runs.study import Run, read_study

TINY = (
    "trainer.max_steps=2",
    "training.batch_size=16",
    "training.warmup_steps=1",
    "validation.count=32",
    "sampling.grid=4",
    "sampler.steps=3",
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "network.groups=4",
    "logger=none",
    "metric=none",
)
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
    line = ["train", "-m", f"target={targets}", f"root={root}", "study=s", *TINY, "hydra/launcher=basic"]
    assert main(line) == 0
    return {str(run.record["target"]): run for run in read_study(root / "s")}


def measured(run: Run, folder: Path, *words: str) -> dict:
    assert main(["evaluate", f"run={run.path}", f"out={folder}/found.json", *FEW, *words]) == 0
    return json.loads((folder / "found.json").read_text())["diagnostics"]["gradients"]


def test_a_runs_gradient_is_printed_written_and_drawn(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["unit_step_noise"]
    found = measured(run, tmp_path)
    text = capsys.readouterr().out
    assert f"{tmp_path}/gradients.html" in text
    assert [(band["low"], band["high"]) for band in found["bands"]] == [(low, low + 2) for low in range(-12, 10, 2)]
    for band in found["bands"]:
        (row,) = re.findall(rf"^ *{band['low']:g} to {band['high']:g} .*$", text, re.M)
        assert f"{band['variance']:.3g}" in row
        assert f"{100 * band['label_noise']:.4g} %" in row
    assert len(found["cosine"]) == len(found["bands"])
    assert (found["batches"], found["batch_size"], found["weights"]) == (4, 8, "trained")
    assert found["loss_scale"] == run.record["loss_scale"]
    page = (tmp_path / "gradients.html").read_text()
    assert "unit_step_noise, native" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    drawings = json.loads(page.partition('id="drawings">')[2].partition("</script>")[0])
    assert list(drawings) == ["norm", "noise-scale", "share", "agreement"]
    assert len(drawings["share"][0]["data"][0]["y"]) == len(found["bands"])


def test_fresh_weights_are_those_that_training_began_with(runs: dict[str, Run], tmp_path: Path) -> None:
    """The last layer starts at zero, so the gradient is that of the label: epsilon's is unit noise at every noise
    level, and scaled_noise is sigma times as much on the same draws.
    """
    (fresh, scaled) = (measured(runs[name], tmp_path, "diagnostics.fresh=true") for name in ("epsilon", "scaled_noise"))
    trained = measured(runs["epsilon"], tmp_path)
    assert fresh["weights"] == "fresh"
    assert fresh["whole"]["variance"] != trained["whole"]["variance"]
    for band, other in zip(fresh["bands"], scaled["bands"], strict=True):
        sigma = torch.sigmoid(torch.tensor([-band["high"], -band["low"]])).sqrt()  # least and most
        ratio = other["variance"] * scaled["loss_scale"] ** 2 / (band["variance"] * fresh["loss_scale"] ** 2)
        assert 0.99 * sigma[0] ** 2 < ratio < 1.01 * sigma[1] ** 2


def test_no_diagnostics_by_default(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["epsilon"]
    assert main(["evaluate", f"run={run.path}", f"out={tmp_path}/e.json", "metric=none", "likelihood.count=0"]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["diagnostics"] == {}
    assert not (tmp_path / "gradients.html").exists()


MISTAKES = {
    "diagnostics.batches=2": "batches",
    "diagnostics.batch_size=0": "batch_size",
    "diagnostics=gradinets": "Did you mean gradients?",
    "diagnostics.bathces=9": "Did you mean diagnostics.batches?",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_message_before_any_work(
    runs: dict[str, Run], override: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [override] if "=gradinets" in override else ["diagnostics=gradients", override]
    assert main(["evaluate", f"run={runs['epsilon'].path}", f"out={tmp_path}/e.json", "metric=none", *words]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("diffexp evaluate: error: ")
    assert MISTAKES[override] in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
