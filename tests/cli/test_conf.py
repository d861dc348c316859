"""Every file in conf/ builds what it names, alone and as an override of the defaults."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from diffexp.schedule import Schedule

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("schedule", "target", "weighting", "times", "data", "sampler", "metric", "network", "optimizer")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_is_a_class_of_its_groups_module_with_its_arguments(group: str, name: str) -> None:
    node = composed(f"{group}={name}")[group]
    named = get_object(node._target_)
    modules = {"network": "diffexp.nn", "metric": "diffexp.metrics", "optimizer": "torch.optim"}
    modules |= {"sampler": "diffexp.samplers"}
    assert named.__module__.startswith(modules.get(group, f"diffexp.{group}"))
    arguments = {key for key in node if not str(key).startswith("_")}
    assert arguments <= inspect.signature(named).parameters.keys()


@pytest.mark.parametrize(("group", "name"), [c for c in CHOICES if c[0] not in ("network", "optimizer", "metric")])
def test_every_choice_builds(group: str, name: str) -> None:
    built = instantiate(composed(f"{group}={name}")[group])
    assert type(built).__module__.startswith("diffexp.")


@pytest.mark.parametrize("name", [c[1] for c in CHOICES if c[0] == "schedule"])
def test_a_schedule_file_says_the_defaults_of_its_class(name: str) -> None:
    built = instantiate(composed(f"schedule={name}").schedule)
    assert isinstance(built, Schedule)
    assert built == type(built)()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_study_of_its_name_with_its_notes(name: str) -> None:
    assert composed(f"experiment={name}").study == name
    assert (CONF.parent / "experiments" / name / "README.md").is_file()


def test_data_chooses_the_network_and_a_person_overrules_it() -> None:
    assert list(composed("data=cifar10").network.widths) == [64, 128, 128, 128]
    assert list(composed("data=cifar10", "network=tiny").network.widths) == [16, 32]
    assert list(composed().network.widths) == [16, 32]


def test_clipping_is_on_for_8_bit_images_and_off_for_mixtures() -> None:
    assert composed("data=digits").sampler.clip is True
    assert composed("data=mixture").sampler.clip is False
    assert composed("data=mixture", "sampler=ancestral").sampler.clip is False
