"""What people's own yaml, scripts and run directories name: none of it may move, or their files break silently."""

import importlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffexp.cli.main import main
from diffexp.runs.study import read_study

ROOT = Path(__file__).parents[1]
STORED = Path(__file__).parent / "stored" / "v0_1"

CHOICES = {
    "data": "cifar10 digits fashion_mnist gaussian images mixture mnist",
    "diagnostics": "gradients none",
    "experiment": "added_noise fair_lr known_optimum prediction_by_loss quick which_target which_target_continuous",
    "logger": "csv none tensorboard wandb",
    "metric": "classifier inception none",
    "network": "ddpm small tiny",
    "optimizer": "adamw",
    "sampler": "ancestral ddim dpmpp_2m heun probability_flow reverse_sde",
    "schedule": "cosine cosine_cont edm linear_beta linear_beta_cont rectified",
    "target": "edm epsilon flow posterior_mean previous_sample scaled_noise score step_difference step_noise "
    "unit_step_noise v x0",
    "times": "log_normal logit_normal uniform",
    "weighting": "edm min_snr p2 sigmoid snr snr_plus_one truncated_snr uniform vlb",
}
PATHS = {
    "diffexp.schedule": "Schedule Chain Path LinearBeta Cosine LinearBetaCont CosineCont Rectified Edm",
    "diffexp.targets": "Target Coefficients Estimate Epsilon ScaledNoise UnitStepNoise StepNoise StepDifference X0 "
    "PosteriorMean PreviousSample Score V Flow Edm",
    "diffexp.times": "Times Uniform LogitNormal LogNormal",
    "diffexp.weighting": "Weighting Uniform Snr TruncatedSnr SnrPlusOne MinSnr P2 Sigmoid Edm Vlb",
    "diffexp.samplers": "Sampler Ancestral Ddim DpmSolverPP2M Heun ProbabilityFlow ReverseSde",
    "diffexp.data.base": "Data Source",
    "diffexp.data.digits": "Digits",
    "diffexp.data.gaussian": "SmoothGaussian",
    "diffexp.data.glyphs": "Digits8",
    "diffexp.data.stored": "StoredImages",
    "diffexp.metrics.samples": "Metric NoMetric SampleMetric",
    "diffexp.metrics.classifier": "TrainedClassifier",
    "diffexp.metrics.inception": "InceptionV3",
    "diffexp.nn.unet": "UNet",
    "diffexp.shapes": "Images PerImage require_per_image",
    "diffexp.denoiser": "Denoiser",
    "diffexp.objective": "Objective",
    "diffexp.oracle": "Mixture Gaussian FiniteData known_density",
    "diffexp.likelihood": "vlb expected_vlb",
}
RECORD = (
    "study target space weighting schedule times data network optimizer seed config_hash status command git versions "
    "device precision parameters images_seen max_images created updated t_min t_max loss_scale zero_loss label_noise "
    "effective_weight optimum final"
)
RUN = {"target": "v", "space": "native", "schedule": "linear_beta", "data": "digits", "seed": 0}
SMALL = (
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "trainer.max_steps=4",
    "training.batch_size=8",
    "validation.count=16",
    "validation.batch_size=16",
    "sampler.steps=2",
    "sampling.grid=4",
    "metric=none",
    "logger=none",
)


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A study that diffexp 0.1.0 wrote: target v in its own space, and target x0 in that of epsilon."""
    return Path(shutil.copytree(STORED, tmp_path / "stored"))


@pytest.mark.parametrize("group", CHOICES)
def test_every_choice_keeps_its_name(group: str) -> None:
    there = {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}
    assert set(CHOICES[group].split()) <= there


@pytest.mark.parametrize("module", PATHS)
def test_every_class_stays_where_a_yaml_or_a_script_names_it(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in PATHS[module].split() if not hasattr(found, name)] == []


def test_a_record_and_a_line_of_metrics_keep_their_keys(tmp_path: Path) -> None:
    assert main(["train", f"root={tmp_path}", "study=s", *SMALL]) == 0
    (run,) = read_study(tmp_path / "s")
    assert set(RECORD.split()) <= run.record.keys()
    old = json.loads(next(STORED.glob("v-*/seed=0/run.json")).read_text())
    metrics = {key for key in old["final"] if key.startswith("val/") and "/lam_" not in key}
    assert metrics <= run.record["final"].keys()
    bands = {key for key in run.record["final"] if key.startswith("val/belief_eps/lam_")}
    assert bands
    assert all(re.fullmatch(r"val/belief_eps/lam_(-?\d+)_(-?\d+)", key) for key in bands)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all("images_seen" in line for line in lines)
    assert {"train/loss", "time/images_per_second", "time/elapsed"} <= {key for line in lines for key in line}
    assert {"config.yaml", "run.json", "metrics.jsonl", "heartbeat", "samples", "checkpoints"} <= {
        path.name for path in run.path.iterdir()
    } | {"heartbeat"}


def test_a_report_reads_a_study_of_0_1(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(stored), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(run["target"], run["space"], run["status"]) for run in told["runs"]} == {
        ("v", "native", "done"),
        ("x0", "epsilon", "done"),
    }
    measured = {row["metric"] for row in told["summary"]}
    assert {"val/belief_eps", "val/belief_x0", "val/bits_per_dim", "fd/classifier_64", "kid/classifier_64"} <= measured
    assert main(["report", str(stored)]) == 0
    assert (stored / "report.html").is_file()


@pytest.mark.parametrize("name", ["v-native", "x0-epsilon"])
def test_evaluating_a_run_of_0_1_repeats_its_validation(
    name: str, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = stored.glob(f"{name}-*/seed=0")
    final = json.loads((run / "run.json").read_text())["final"]
    out = stored / "found.json"
    assert main(["evaluate", f"run={run}", "metric=none", "likelihood.count=0", f"out={out}"]) == 0
    found = json.loads(out.read_text())
    values = found.get("metrics", found)
    for key in ("val/belief_eps", "val/belief_x0", "val/belief_v", "val/loss"):
        assert math.isclose(values[key], final[key], rel_tol=1e-5), key


def test_a_run_of_0_1_is_measured_by_its_best_weights_and_other_metrics(stored: Path) -> None:
    (run,) = stored.glob("v-native-*/seed=0")
    words = [f"run={run}", "weights=best", "likelihood.count=0", "metric.count=66", f"cache={stored}/cache"]
    assert main(["evaluate", *words, "sampler=heun", "sampler.steps=2"]) == 0
    (file,) = (run / "evaluations").glob("heun-2-best-*.json")
    assert "fd/classifier_66" in json.loads(file.read_text())["metrics"]


def test_sampling_from_a_run_of_0_1_gives_the_images_it_gave(stored: Path) -> None:
    """Against the grid that 0.1 drew at the end of the training, of the same noise and weights."""
    from PIL import Image

    (run,) = stored.glob("v-native-*/seed=0")
    assert main(["sample", f"run={run}", "count=4", f"out={stored / 'again.png'}"]) == 0
    then, now = (np.asarray(Image.open(file)) for file in (run / "samples" / "final.png", stored / "again.png"))
    assert then.shape == now.shape
    assert np.abs(then.astype(int) - now.astype(int)).max() <= 1


def test_a_run_of_0_1_is_found_by_its_names(stored: Path) -> None:
    (run,) = stored.glob("v-native-*/seed=0")
    record = json.loads((run / "run.json").read_text())
    assert {key: record[key] for key in RUN} == RUN
