"""`diffexp check`: the target and schedules of a command line, its output and its exit code."""

import itertools
import json
import sys
from pathlib import Path

import pytest
from small_conf import write

from diffexp.cli.main import main

MINE = """
from dataclasses import dataclass

import torch

from diffexp.shapes import require_per_image
from diffexp.targets import Coefficients, Target


@dataclass(frozen=True)
class ImageMinusNoise(Target):
    width: float = 1.0

    def coefficients(self, schedule, t):
        require_per_image(t)
        one = torch.ones_like(t)
        return Coefficients(one, -self.width * one, torch.zeros_like(t))


class Unguarded(Target):
    def coefficients(self, schedule, t):
        one = torch.ones_like(t)
        return Coefficients(one, -one, torch.zeros_like(t))


class Required(ImageMinusNoise):
    def __init__(self, length):
        super().__init__(length)


class Unfinished(Target):
    pass


class Other:
    def coefficients(self, schedule, t):
        return 1.0, 0.0, 0.0


class Everywhere(Target):
    def coefficients(self, schedule, t):
        raise ValueError("not today")


def function():
    pass
"""
_numbers = itertools.count()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, another for each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    name = f"mine_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(MINE)
    return name


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and what was printed, or the error, in one line; a slow machine's progress is neither."""
    code = main(["check", *words])
    caught = capsys.readouterr()
    assert "Traceback" not in caught.err
    return code, " ".join((caught.err if code == 2 else caught.out).split())


def test_one_schedule_is_printed_check_by_check(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked(capsys, "target=posterior_mean", "schedule=linear_beta")
    assert code == 0
    assert "target=posterior_mean on schedule=linear_beta" in text
    assert "note bfloat16 rounding the prediction changes x0 by 13 (at t = 1, log-SNR -10.1;" in text
    assert "for epsilon by 0.3 and 0.002, for x0 by 0.002 and 0.2" in text
    assert text.endswith("All checks pass on linear_beta.")


def test_all_schedules_are_checked_custom_ones_included(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a target file of one's own, whose class lies in the current folder."""
    own = {
        "target/own.yaml": f"_target_: {mine}.ImageMinusNoise",
        "schedule/steep.yaml": "_target_: diffexp.schedule.LinearBeta\nsteps: 100",
    }
    write(tmp_path / "myconf", own)
    code, text = checked(capsys, "--config-dir=myconf", "target=own", "out=found.json")
    assert code == 0
    assert "All checks pass on 7 schedules." in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"linear_beta", "cosine", "linear_beta_cont", "cosine_cont", "rectified", "edm", "steep"} == found.keys()
    assert all(result["verdict"] == "ok" for report in found.values() for result in report["results"])
    assert found["steep"]["training"]["gradients"].keys() <= {"high", "middle", "low"}


def test_a_class_is_named_by_its_path_and_takes_its_settings(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The zero-prediction loss is the mean square of x0 - width eps."""
    assert main(["check", f"target={mine}.ImageMinusNoise", "target.width=0.25", "--cfg", "job"]) == 0
    assert "width: 0.25" in capsys.readouterr().out
    words = [f"target={mine}.ImageMinusNoise", "target.width=0.25", "schedule=rectified", "out=found.json"]
    assert checked(capsys, *words)[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rectified"]["training"]["zero_loss"] == pytest.approx(1 + 0.25**2)
    code, text = checked(capsys, f"target={mine}.Required", "schedule=rectified")
    assert code == 2
    assert "target.length=...: must be given" in text
    assert checked(capsys, f"target={mine}.Required", "target.length=2", "schedule=rectified")[0] == 0


def test_a_wrong_target_ends_with_1_and_the_reason(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked(capsys, f"target={mine}.Unguarded", "schedule=rectified")
    assert code == 1
    assert "FAILED time shape coefficients accepts a 1-D time" in text
    assert text.endswith(f"target={mine}.Unguarded is wrong on rectified.")
    code, text = checked(capsys, f"target={mine}.Unguarded")
    assert code == 1
    assert "FAILED rectified, time shape: coefficients accepts a 1-D time" in text


def test_where_a_target_does_not_exist_nothing_has_failed(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked(capsys, "target=flow")
    assert (code, text.count("target=flow does not exist on schedule=")) == (0, 2)
    assert text.endswith("All checks pass on 4 schedules.")
    code, text = checked(capsys, "target=flow", "schedule=cosine")
    assert code == 1
    assert text.endswith("nothing was checked.")
    code, text = checked(capsys, f"target={mine}.Everywhere")
    assert code == 1
    assert "not today" in text


@pytest.mark.parametrize(
    ("path_in_module", "words"),
    [
        ("{}.ImageMinuNoise", "there is no ImageMinuNoise in {}. Did you mean ImageMinusNoise?"),
        ("{}.function", "that is a function and not a Target. Write class function(Target) with a method coefficients"),
        ("{}.Other", "that is a class, but not a Target. Write class Other(Target)"),
        ("{}.Unfinished", "the class has no method coefficients. Write def coefficients(self, schedule, t)."),
        ("nowhere.Mine", "there is no module nowhere. If nowhere.py is your own, put its folder on PYTHONPATH"),
        ("needs_{}.X", "importing needs_{} fails: No module named 'torchvisions' (needs_{}.py, line 1)."),
        ("broken_{}.X", "importing broken_{} fails: SyntaxError: "),
        ("dividing_{}.X", "importing dividing_{} fails: ZeroDivisionError: division by zero (dividing_{}.py, line 2)."),
    ],
)
def test_a_class_that_cannot_be_located_is_one_message(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], path_in_module: str, words: str
) -> None:
    write(tmp_path, {f"needs_{mine}.py": "import torchvisions", f"broken_{mine}.py": "def f(:",
                     f"dividing_{mine}.py": "x = 0\ny = 1 / x"})  # fmt: skip
    path = path_in_module.format(mine)
    code, text = checked(capsys, f"target={path}")
    assert code == 2
    assert text.startswith(f"diffexp check: error: target={path}: ")
    assert words.replace("{}", mine) in text
    write(tmp_path / "myconf", {"target/own.yaml": f"_target_: {path}"})
    own = text.replace(f"target={path}: ", f"target=own (_target_: {path}): ")
    assert checked(capsys, "--config-dir=myconf", "target=own") == (code, own)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "target=... must be given"),
        (["target=vv"], "there is no vv in target. Did you mean v?"),
        (["-m", "target=v,epsilon"], "check takes one target at a time"),
        (["target=v", "schedule=linear"], "there is no linear in schedule."),
        (["target=v", "out=found.yaml"], "out=found.yaml: the results are written as .json."),
        (["target=edm", "target.sigma=1"], "there is no key target.sigma. Did you mean target.sigma_data?"),
    ],
)
def test_what_cannot_be_checked_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = checked(capsys, *line)
    assert code == 2
    assert words in text
    assert not list(tmp_path.iterdir())


def test_the_times_that_are_used_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked(capsys, "target=epsilon", "schedule=rectified", "sampling.t_start=1.0", "times.t_max=0.99")
    assert code == 0
    assert (
        "note invertible at t = 1 (log-SNR -inf) the target does not determine x0 and eps: set sampling.t_start="
        in text
    )
