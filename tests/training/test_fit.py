"""`diffexp.fit` and `diffexp.load`: a run from plain objects, the same as the command line's, and back."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import python
from torch import nn

import diffexp
from diffexp.cli.main import main
from diffexp.data.digits import Digits
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.nn.unet import UNet
from diffexp.runs.study import Run, read_study
from diffexp.samplers import Ddim
from diffexp.schedule import LinearBeta
from diffexp.targets import Epsilon, StepNoise, V
from diffexp.training import Sampling, Training, Validation

DOC = Path(__file__).parents[2] / "docs" / "python.md"
NETWORK = partial(UNet, widths=[8], attention=[False], layers=1, groups=8, dropout=0.0, conditioning="time")
TRAINING = Training(batch_size=16, warmup_steps=200, ema_decay=0.999, log_every=2)
SMALL = {
    "training": TRAINING,
    "validation": Validation(every=4, count=32, batch_size=32),
    "sampling": Sampling(grid=4),
    "sampler": Ddim(steps=2, clip=True),
}
COMMAND = (
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "training.batch_size=16",
    "training.log_every=2",
    "validation.every=4",
    "validation.count=32",
    "validation.batch_size=32",
    "sampling.grid=4",
    "sampler.steps=2",
    "metric=none",
    "logger=none",
)


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def fit(root: Path, max_steps: int = 6, seed: int = 3, **parts: object) -> Run:
    settings = {"target": V(), "data": Digits(), "network": NETWORK, **SMALL, **parts}
    return diffexp.fit(root=root, study="s", seed=seed, max_steps=max_steps, accelerator="cpu", **settings)


def curve(run: Run) -> list[dict[str, float | None]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]


def test_a_run_from_objects_is_that_of_the_command_line(tmp_path: Path) -> None:
    """Same draws, same weights, same numbers to the last digit, and a record with the same names."""
    assert main(["train", f"root={tmp_path}", "study=c", "target=v", "seed=3", "trainer.max_steps=6", *COMMAND]) == 0
    (typed,) = read_study(tmp_path / "c")
    called = fit(tmp_path)
    assert curve(called) == curve(typed)
    for key in ("target", "space", "weighting", "schedule", "times", "data", "seed", "parameters", "loss_scale"):
        assert called.record[key] == typed.record[key], key


def test_the_same_call_goes_on_and_ends_as_if_made_once(tmp_path: Path) -> None:
    straight = fit(tmp_path / "a", max_steps=8)
    fit(tmp_path / "b", max_steps=4)
    assert curve(fit(tmp_path / "b", max_steps=8))[-1] == curve(straight)[-1]
    before = (straight.path / "run.json").read_bytes()
    fit(tmp_path / "a", max_steps=8)
    assert (straight.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("space", [None, V(), StepNoise()], ids=str)
def test_a_run_is_loaded_without_its_configuration_being_composed(tmp_path: Path, space: object) -> None:
    run = fit(tmp_path, target=Epsilon(), space=space)
    loaded = diffexp.load(run.path)
    assert (loaded.target, loaded.schedule, loaded.step) == (Epsilon(), LinearBeta(), 6)
    assert (loaded.data.name, loaded.data.image_shape, loaded.data.classes) == ("digits", (1, 8, 8), 10)
    _predicts_what_was_validated(loaded, run)


@pytest.mark.parametrize("space", ["native", "v", "unit_step_noise"])
def test_a_run_of_the_command_line_is_loaded_in_another_process(tmp_path: Path, space: str) -> None:
    overrides = [f"objective.space={space}", "target=x0", "trainer.max_steps=4"]
    assert main(["train", f"root={tmp_path}", "study=c", *overrides, *COMMAND]) == 0
    (run,) = read_study(tmp_path / "c")
    _predicts_what_was_validated(diffexp.load(run.path), run)


def test_a_run_of_0_1_is_loaded() -> None:
    stored = Path(__file__).parents[1] / "stored" / "v0_1"
    for path in stored.glob("*/seed=0"):
        run = Run.at(path)
        assert run is not None
        _predicts_what_was_validated(diffexp.load(path), run)


def _predicts_what_was_validated(loaded: "diffexp.training.loading.LoadedRun", run: Run) -> None:
    """The total error in eps units, from the loaded denoiser alone, by the definition of the validation."""
    from diffexp.times import Uniform
    from diffexp.training.validation import _SEED

    validation = run.config["validation"]
    count = validation["count"]
    draws, data = Draws(_SEED), Digits().load()
    x0 = data.heldout(count)
    eps = draws.normal(x0.shape, 0, "eps")
    u = (draws.choose(count, count, 0, "strata") + draws.uniform(count, 0, "times")) / count
    t = Uniform(None, None)(loaded.schedule, u)
    with torch.no_grad():
        found = loaded.denoiser(loaded.schedule.noised(t, x0, eps), t).eps
    error = (found.double() - eps.double()).square().mean().item()
    assert error == pytest.approx(run.final["val/belief_eps"], rel=1e-4)


def test_what_could_not_be_loaded_again_is_an_error(tmp_path: Path) -> None:
    class Local(nn.Module):
        pass

    for network in (lambda **shared: nn.Identity(), Local, partial(UNet, [1, 8, 8])):
        with pytest.raises(UserError, match="network"):
            fit(tmp_path, network=network)
    assert not (tmp_path / "s").exists()


def test_the_script_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 25 lines of code, copied as a reader would copy it; only shorter."""
    (script,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.S)
    code = [line for line in script.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 25
    shorter = script.replace("max_steps=300", "max_steps=4").replace("count=512", "count=32")
    monkeypatch.chdir(tmp_path)
    with python(shorter) as script_of_the_docs:
        out, err = script_of_the_docs.communicate()
    assert script_of_the_docs.returncode == 0, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if "error in eps units" in line] == ["epsilon", "x0", "v"]
    assert lines[-1] == "V() 4 (16, 1, 8, 8)"
    assert {run.record["target"] for run in read_study(tmp_path / "runs" / "notebook")} == {"epsilon", "x0", "v"}
    record = json.loads(next((tmp_path / "runs" / "notebook").glob("v-*/seed=0/run.json")).read_text())
    assert record["status"] == "done"
