"""`diffexp check target=...`: proofs that a target is right, on every schedule or on one."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from diffexp.errors import UserError


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 1 if a proof fails, 2 for what cannot be checked."""
    from diffexp.cli.class_paths import classes_as_choices
    from diffexp.cli.hydra_app import run_hydra_app

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # a class in the current folder, as with PYTHONPATH=.
    with classes_as_choices("target", argv):
        return run_hydra_app(prove, "check", argv, check)


def check(cfg: DictConfig) -> None:
    """Refuse what is no target, or cannot be built.

    Raises:
        UserError: With one clear message.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from diffexp.cli.class_paths import require_subclass

    if HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UserError("check takes one target at a time, on every schedule unless schedule= names one: leave -m out.")
    if cfg.get("target") is None:
        raise UserError(
            "target=... must be given: a choice of conf/target, such as target=v, or a class, module.Class."
        )
    if cfg.out is not None and Path(cfg.out).suffix != ".json":
        raise UserError(f"out={cfg.out}: what was found is written as .json.")

    from diffexp.targets import Target

    require_subclass("target", cfg.target, Target, "coefficients(self, schedule, t)")


def prove(cfg: DictConfig) -> None:
    """Print what holds and what does not.

    Raises:
        SystemExit: 1 if a proof fails, or if the target exists on none of the schedules.
    """
    from dataclasses import asdict

    import torch
    from hydra.core.hydra_config import HydraConfig

    from diffexp.check.target import Examination, examine
    from diffexp.check.terminal import print_verdicts
    from diffexp.check.training import Consequences, consequences
    from diffexp.cli.config import choices, composed_with
    from diffexp.cli.instantiate import built
    from diffexp.io.files import write_text
    from diffexp.io.jsonio import strict_json
    from diffexp.io.progress import progress
    from diffexp.schedule import Schedule
    from diffexp.targets import Target
    from diffexp.times import Times

    torch.set_num_threads(1)  # all tensors are small
    chosen: Mapping[str, str | None] = HydraConfig.get().runtime.choices
    found, known = dict[str, Examination](), dict[str, Consequences]()
    names = [chosen["schedule"]] if chosen["schedule"] else choices("schedule")
    for name in progress(names, len(names), "schedules"):
        own = composed_with(f"schedule={name}")
        target, schedule = built(own.target, Target, "target"), built(own.schedule, Schedule, "schedule")
        times = built(own.times, Times, "times")
        found[name] = examine(target, schedule, times, float(own.sampling.t_start))
        if found[name].absent is None and found[name].holds:
            known[name] = consequences(target, schedule, times)
    print_verdicts(str(chosen["target"]), found, known)
    if cfg.out is not None:
        both = {
            name: {**asdict(each), "consequences": asdict(known[name]) if name in known else None}
            for name, each in found.items()
        }
        write_text(Path(cfg.out), strict_json(both, indent=2) + "\n")
        print(cfg.out)
    if not all(each.holds for each in found.values()) or all(each.absent for each in found.values()):
        raise SystemExit(1)
