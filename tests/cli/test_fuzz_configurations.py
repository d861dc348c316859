"""Random command lines, valid or not, end well: see tools/fuzz_configurations.py."""

import shlex
from pathlib import Path

import pytest
import torch
from fuzz_configurations import Outcome, outcome, tried


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def test_every_command_line_builds_or_is_refused_in_one_message(tmp_path: Path) -> None:
    def look(words: list[str], found: Outcome) -> None:
        assert found.wrong is None, f"diffexp train {shlex.join(words)}\n{found.stderr}"

    tried(50, look, tmp_path, number=None)
    assert not list(tmp_path.rglob("run.json"))


#: What random command lines have found, so that it stays found.
FOUND = {
    "times.t_max=' '": "times.t_max=' ': must be a number or null.",
    "seed=${nothing.here}": "seed: Interpolation key 'nothing.here' not found",
    "optimizer._target_=json.loads": "optimizer._target_=json.loads: this must name a class that extends torch.optim",
    "~network._target_": "network: no class is named here.",
    "sampler.steps='8'": "sampler.steps='8': must be a whole number.",
    "+sampler._partial_=[bold]": "sampler._partial_=['bold']: must be true or false. Leave it out.",
    "+hydra.sweeper.params.seed=1.5 -m": "seed=1.5: must be a whole number",
    "+target._partial_=true": "target: a class that extends diffexp.targets.Target was expected",
}


@pytest.mark.parametrize("typed", FOUND)
def test_what_was_found_stays_one_message(tmp_path: Path, typed: str) -> None:
    found = outcome(typed.split() if "' '" not in typed else [typed], tmp_path)
    assert found.wrong is None, found.stderr
    assert FOUND[typed] in found.stderr
