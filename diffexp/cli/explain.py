"""`diffexp explain`: how well a target can be predicted, before anything is trained."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from diffexp.cli.config import compose_choice, paths_quoted
from diffexp.cli.identity import chosen_files
from diffexp.errors import UserError

if TYPE_CHECKING:
    from diffexp.explain.losses import Explanation
    from diffexp.objective import Objective
    from diffexp.schedule import Schedule
    from diffexp.times import Times

_SEVERAL = re.compile(r"target=([^,='\"\[\]]+),(.+)")


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.cli.hydra_app import run_hydra_app

    words = paths_quoted(argv)
    if not {"-m", "--multirun"} & set(words):
        several = any(_SEVERAL.fullmatch(word) for word in words)
        if several and (against := next((word for word in words if word.startswith("against=")), None)):
            message = f"{against} beside several targets: name all of them in one place, as target=a,b,c."
            print(f"diffexp explain: error: {message}", file=sys.stderr)
            return 2
        words = [part for word in words for part in in_one_table(word)]
    return run_hydra_app(explain, "explain", words, validate)


def in_one_table(word: str) -> list[str]:
    """`target=a,b,c` as `target=a` and `against=[b,c]`; any other word as it is.

    In Hydra a comma makes a sweep of independent jobs.
    """
    found = _SEVERAL.fullmatch(word)
    return [f"target={found[1]}", f"against=[{found[2]}]"] if found else [word]


def validate(cfg: DictConfig) -> None:
    """Check that the losses exist and that the output can be written.

    Raises:
        UserError: With one clear message.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UserError("with -m each job would overwrite the page of the last: use target=a,b,c without -m.")
    if cfg.out is not None and Path(cfg.out).suffix not in (".html", ".json"):
        raise UserError(f"out={cfg.out}: the page is written to a .html, the numbers to a .json. Try explain.html.")
    if cfg.out is not None and not Path(cfg.out).parent.is_dir():
        raise UserError(f"out={cfg.out}: there is no folder {Path(cfg.out).parent}. Create it first.")
    if not isinstance(cfg.nodes, int) or cfg.nodes < 4:
        raise UserError(f"nodes={cfg.nodes}: a curve needs at least 4; the default is 24.")
    _losses(cfg)


def explain(cfg: DictConfig) -> None:
    """Print the results, and write the page or the numbers."""
    from rich.console import Console

    from diffexp.cli import build
    from diffexp.explain.losses import explain as explanation_of
    from diffexp.explain.page import write_page
    from diffexp.explain.terminal import print_explanation
    from diffexp.io.files import write_text

    objectives, schedule, times = _losses(cfg)
    data = build.load_data(OmegaConf.to_yaml(cfg.data, resolve=True)).to(build.device(cfg))
    found = explanation_of(objectives, data, schedule, times, cfg.nodes)
    settings = {name: chosen_files()[name] for name in ("data", "schedule", "times", "weighting")}
    settings["space"] = str(cfg.objective.space)
    terminal = Console(highlight=False)
    print_explanation(found, settings, terminal if terminal.is_terminal else Console(highlight=False, width=120))
    if cfg.out is None:
        return
    out = Path(cfg.out)
    if out.suffix == ".json":
        write_text(out, _numbers(found, settings))
        print(f"Numbers: {out}")
    else:
        write_text(out, write_page(found, settings, _command()))
        print(f"Page: {out}")


def _losses(cfg: DictConfig) -> "tuple[dict[str, Objective], Schedule, Times]":
    """The loss of each target by name, and what they share."""
    from diffexp.cli import build
    from diffexp.cli.feasibility import require_invertible
    from diffexp.cli.instantiate import built
    from diffexp.objective import Objective
    from diffexp.schedule import Schedule
    from diffexp.targets import Target
    from diffexp.times import Times
    from diffexp.weighting import Weighting

    schedule, times = built(cfg.schedule, Schedule, "schedule"), built(cfg.times, Times, "times")
    space, weighting = build.space(cfg), built(cfg.weighting, Weighting, "weighting")
    chosen = chosen_files()
    nodes = {chosen["target"]: cfg.target}
    against = [cfg.against] if isinstance(cfg.against, str) else cfg.against or []
    nodes |= {name: compose_choice("target", name, cfg) for name in map(str, against) if name not in nodes}
    objectives: dict[str, Objective] = {}
    for name, node in nodes.items():
        objective = Objective(built(node, Target, "target"), space, weighting)
        try:
            require_invertible(cfg, {**chosen, "target": name}, objective, schedule, times, None)
        except ValueError as error:
            start = f"target={name} on schedule={chosen['schedule']}"
            raise UserError(str(error) if str(error).startswith(start) else f"{start}: {error}") from error
        objectives[name] = objective
    return objectives, schedule, times


def _numbers(found: "Explanation", settings: dict[str, str]) -> str:
    from dataclasses import asdict

    from diffexp.io.jsonio import strict_json
    from diffexp.runs.provenance import git_state

    about: dict[str, Any] = {"command": _command(), "git": git_state(), "settings": settings}
    return strict_json(about | asdict(found), indent=1) + "\n"


def _command() -> str:
    """The command line that repeats this, without its output file."""
    from hydra.core.hydra_config import HydraConfig

    words = [word for word in HydraConfig.get().overrides.task if not word.startswith("out=")]
    return f"diffexp explain {shlex.join(words)}"
