"""Where the configuration lies, and which choices a group has, a person's own files included."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffexp
from diffexp.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_dir() -> Path:
    """The folder conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(diffexp.__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def choices(group: str) -> list[str]:
    """The names that `group=` takes, sorted, wherever on Hydra's search path they lie.

    For use inside a Hydra application (a task, or the check before it): the search path is that of the job,
    with `--config-dir` and `hydra.searchpath`. Empty for a group that does not exist.
    """
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options(group, overrides=_search_path())


def compose_choice(group: str, name: str, config: "DictConfig") -> "DictConfig":
    """What `group=name`, without overrides of its own, would put under `group` in this configuration.

    The node's parent is a copy of `config`, so that `${schedule.steps}` in the choice is this job's number.
    Like `choices`, for use inside a Hydra application.

    Raises:
        ValueError: `name` is no choice of the group.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    there = choices(group)
    if name not in there:
        raise UserError(
            f"{group}={name}: there is no {name} in {group}.{did_you_mean(name, there)} Choices: {', '.join(there)}."
        )
    key = group.replace("/", ".")
    alone = (
        GlobalHydra.instance()
        .config_loader()
        .load_configuration(config_name=f"{group}/{name}", overrides=_search_path(), run_mode=RunMode.RUN)
    )
    whole = copy.deepcopy(config)
    OmegaConf.update(whole, key, OmegaConf.select(alone, key), merge=False, force_add=True)
    return OmegaConf.select(whole, key)


def composed_with(*overrides: str) -> "DictConfig":
    """This job's configuration, composed again with further overrides. Like `choices`, for use inside a job."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    words = [*job.overrides.task, *overrides, *_search_path()]
    return GlobalHydra.instance().config_loader().load_configuration(job.job.config_name, words, RunMode.RUN)


def quoted(text: str) -> str:
    """The text as a quoted value of Hydra's override grammar, whatever is in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def paths_quoted(argv: Sequence[str]) -> list[str]:
    """The arguments with `run=` and `out=` quoted: a run's directory is called seed=N, which Hydra would parse."""
    plain = re.compile(r"(run|out)=(?!null$)([^'\"].*)")
    return [f"{match[1]}={quoted(match[2])}" if (match := plain.fullmatch(word)) else word for word in argv]


def _search_path() -> list[str]:
    """The override that gives another composition the search path of the running job."""
    from hydra.core.hydra_config import HydraConfig

    folders: Any = HydraConfig.get().searchpath
    return [f"hydra.searchpath=[{','.join(map(quoted, folders))}]"]
