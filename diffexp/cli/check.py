"""`diffexp check target=...`: whether a target is correct, on every schedule or on one."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from diffexp.errors import UserError


def main(argv: Sequence[str]) -> int:
    """The command's exit code: 1 if a check fails, 2 if nothing can be checked."""
    from diffexp.cli.class_paths import classes_as_choices
    from diffexp.cli.hydra_app import run_hydra_app

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # finds classes in the current folder, as PYTHONPATH=. does
    with classes_as_choices("target", argv):
        return run_hydra_app(check, "check", argv, validate)


def validate(cfg: DictConfig) -> None:
    """Check that the configuration names a target that can be built.

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
        raise UserError(f"out={cfg.out}: the results are written as .json.")

    from diffexp.targets import Target

    require_subclass("target", cfg.target, Target, "coefficients(self, schedule, t)")


def check(cfg: DictConfig) -> None:
    """Print the results.

    Raises:
        SystemExit: 1 if a check fails, or if the target exists on none of the schedules.
    """
    from dataclasses import asdict

    import torch
    from hydra.core.hydra_config import HydraConfig

    from diffexp.check.target import TargetReport, check_target
    from diffexp.check.terminal import print_reports
    from diffexp.check.training import TrainingReport, training_report
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
    reports, training = dict[str, TargetReport](), dict[str, TrainingReport]()
    names = [chosen["schedule"]] if chosen["schedule"] else choices("schedule")
    for name in progress(names, len(names), "schedules"):
        own = composed_with(f"schedule={name}")
        target, schedule = built(own.target, Target, "target"), built(own.schedule, Schedule, "schedule")
        times = built(own.times, Times, "times")
        reports[name] = check_target(target, schedule, times, float(own.sampling.t_start))
        if reports[name].undefined is None and reports[name].passed:
            training[name] = training_report(target, schedule, times)
    print_reports(str(chosen["target"]), reports, training)
    if cfg.out is not None:
        both = {
            name: {**asdict(report), "training": asdict(training[name]) if name in training else None}
            for name, report in reports.items()
        }
        write_text(Path(cfg.out), strict_json(both, indent=2) + "\n")
        print(cfg.out)
    if not all(report.passed for report in reports.values()) or all(report.undefined for report in reports.values()):
        raise SystemExit(1)
