"""From `_target_` to an object: what may be called, and what is made of an error."""

import functools
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from diffexp.cli.instantiate import built
from diffexp.errors import UserError
from diffexp.samplers import Ddim, Sampler
from diffexp.targets import Edm, Target
from diffexp.training.instantiate import call, locate, prefix_with_key


class Fails:
    """A class of a person's own."""

    def __init__(self, error: Exception) -> None:
        raise error


def test_a_node_is_built_with_its_arguments() -> None:
    node = OmegaConf.create(
        {"s": 1, "sampler": {"_target_": "diffexp.samplers.Ddim", "steps": "${s}", "grid": [1.0, 0.0]}}
    )
    made = built(node.sampler, Sampler, "sampler")
    assert isinstance(made, Ddim)
    assert made.steps == 1


def test_inner_nodes_are_built_first_and_their_errors_name_their_key() -> None:
    inner = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    node = OmegaConf.create({"_target_": "torch.nn.Sequential", "_args_": [inner, {"_target_": "torch.nn.ReLU"}]})
    assert [type(part) for part in built(node, nn.Module, "network")] == [nn.Linear, nn.ReLU]
    del node["_args_"][0]["out_features"]
    with pytest.raises(UserError, match=r"^network\._args_\.0: Linear: missing a required argument: 'out_features'"):
        built(node, nn.Module, "network")


def test_what_the_program_passes_takes_the_place_of_a_setting() -> None:
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    make = functools.partial(built, node, torch.optim.Optimizer, "optimizer")
    assert make([nn.Parameter(torch.ones(1))]).defaults["lr"] == 0.5
    assert make([nn.Parameter(torch.ones(1))], lr=0.25).defaults["lr"] == 0.25


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"_target_": "os.system", "command": "true"},
            r"target\._target_=os\.system: this must name a class that extends",
        ),
        ({"_target_": "fractions.Fraction"}, "and it is another class"),
        ({"std": 1}, "target: no class is named here"),
        ({"_target_": "diffexp.targets.Edm", "sigma_data": {"_target_": "pathlib.Path"}}, "one that may be a part of"),
        ({"_target_": "diffexp.targets.Edm", "sigma_data": "x"}, "target.sigma_data=x: must be a number"),
        ({"_target_": "diffexp.targets.Edm", "_partial_": True}, "was expected, and this makes a partial"),
    ],
)
def test_nothing_but_a_class_of_the_right_kind_is_called(node: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(OmegaConf.create(node), Target, "target")


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("no"), ZeroDivisionError("no")])
def test_whatever_a_persons_own_class_raises_is_about_that_class_and_its_line(error: Exception) -> None:
    name, line = f"{Fails.__module__}.Fails", rf"\({Path(__file__).name}, line \d+\)"
    with pytest.raises(UserError, match=rf"^network: {name} raises {type(error).__name__}: no {line}\.$"):
        call("network", Fails, error)


def test_a_class_of_ours_judges_its_arguments_and_anything_else_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^sampler: Ddim\(.*needs steps >= 1"):
        call("sampler", Ddim, steps=0)
    for error in (RuntimeError("a bug"), UserError("judged")):
        monkeypatch.setattr(Edm, "__init__", lambda self, error=error: Fails(error))
        with pytest.raises(type(error), match="^a bug$" if type(error) is RuntimeError else "^target: judged$"):
            call("target", Edm)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("diffexp.targets.Scor", r"^x: there is no Scor in diffexp\.targets\. Did you mean Score\?$"),
        ("diffexp.target.Score", r"^x: there is no target in diffexp\. Did you mean targets\?$"),
        ("nowhere.X", r"^x: there is no module nowhere\. .*PYTHONPATH=FOLDER_OF_nowhere\.py"),
        ("here_alone.X", r"PYTHONPATH=\. diffexp"),
        ("word", "there is no module word"),
    ],
)
def test_a_name_that_is_not_found_gives_the_nearest(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_alone.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [folder for folder in __import__("sys").path if folder not in ("", ".")])
    with pytest.raises(UserError, match=message):
        locate(path, "x")


def test_what_is_found_may_lie_inside_a_class() -> None:
    assert locate("pathlib.Path.mkdir", "") is Path.mkdir
    assert locate("diffexp.targets.Edm", "") is Edm


def test_a_message_gets_the_key_that_it_lacks() -> None:
    assert prefix_with_key("sampler", "sampler.eta=2: too much") == "sampler.eta=2: too much"
    assert prefix_with_key("sampler", "eta=2: too much") == "sampler.eta=2: too much"
    assert prefix_with_key("sampler", "too much") == "sampler: too much"
