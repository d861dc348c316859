"""Types and ranges of the settings, checked when a command line is composed and before anything is built."""

import pytest
from omegaconf import OmegaConf

from diffexp.cli.schema import typed, validate_settings, validate_unread
from diffexp.errors import UserError

TRAIN = {"seed": 0, "training": {"batch_size": 8, "ema_decay": 0.9}, "sampling": {"every": None, "clip": True}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": {"batch_size": "abc"}}, "training.batch_size=abc: must be a whole number."),
        ({"training": {"batch_size": 1.5}}, "training.batch_size=1.5: must be a whole number."),
        ({"training": {"batch_size": None}}, "training.batch_size=null: must be a whole number."),
        ({"training": {"batch_size": True}}, "training.batch_size=true: must be a whole number."),
        ({"sampling": {"every": "x"}}, "sampling.every=x: must be a whole number or null."),
        ({"sampling": {"clip": "perhaps"}}, "sampling.clip=perhaps: must be true or false or null."),
        ({"seed": [1]}, "seed=[1]: must be a whole number."),
        ({"study": [1]}, "study=[1]: must be text or null."),
        ({"training": 3}, "training=3: this is a section. Set one of its keys, training.KEY=VALUE."),
        ({"trainer": None}, "trainer=null: this is a section."),
        ({"training": {"batch_sizes": 1}}, "training.batch_sizes: there is no such setting. Did you mean training.bat"),
        ({"compute": {"foo": 1}}, "compute.foo: there is no such setting. Keys of compute: channels_last, compile, "),
    ],
)
def test_a_value_of_another_type_and_an_unknown_key_are_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        typed(OmegaConf.create(given))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_values_are_converted_and_nothing_is_added() -> None:
    """So that training.ema_decay=1 and =1.0 are one configuration; groups and what a command lacks stay as they are."""
    given = {**TRAIN, "training": {"ema_decay": 1}, "compute": {"precision": 32}, "target": {"std": 1}}
    assert OmegaConf.to_container(typed(OmegaConf.create(given))) == {
        **given,
        "training": {"ema_decay": 1.0},
        "compute": {"precision": "32"},
    }
    assert type(typed(OmegaConf.create(given)).training.ema_decay) is float


def test_a_value_may_refer_to_another() -> None:
    cfg = typed(OmegaConf.create({"mine": 4, "training": {"batch_size": "${mine}"}, "sampling": {"grid": "${seed}"}}))
    assert cfg.training.batch_size == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": {"batch_size": 0}}, "training.batch_size=0: must be a whole number, 1 or more."),
        ({"training": {"ema_decay": 1.0}}, "training.ema_decay=1.0: must be from 0 to below 1, for example 0.999."),
        ({"validation": {"bound": "x"}}, "validation.bound=x: must be beta, beta_tilde or null"),
        ({"sampling": {"every": 0}}, "sampling.every=0: must be null or a whole number, 1 or more."),
        ({"trainer": {"max_steps": True}}, "trainer.max_steps=true: must be a whole number, 1 or more."),
        ({"trainer": {"devices": 2}}, "trainer.devices=2: must be 1 (torchrun"),
        ({"times": {"t_min": float("inf")}}, "times.t_min=inf: must be a finite number."),
        ({"trainer": {"precision": 16}}, "trainer.precision=16: set compute.precision instead."),
    ],
)
def test_a_value_out_of_range_is_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate_settings(OmegaConf.create(given))
    assert str(error.value).startswith(message)


def test_what_is_in_range_or_absent_passes() -> None:
    validate_settings(OmegaConf.create(TRAIN))
    validate_settings(OmegaConf.create({"validation": {"bound": None}, "trainer": {"max_steps": 1}}))


def test_a_key_that_nothing_reads_is_an_error_unless_another_value_does() -> None:
    validate_unread(
        OmegaConf.create({**TRAIN, "target": {}, "mine": 1, "x": {"y": "${mine}"}}), {"target": "v", "x": "y"}
    )
    with pytest.raises(UserError, match=r"seeds=1: nothing reads this key\. Did you mean seed\?"):
        validate_unread(OmegaConf.create({"seeds": 1}), {})
