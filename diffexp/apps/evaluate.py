"""`diffexp evaluate run=...`: a trained run measured again, with another sampler or metric if one is named."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.apps.own_settings import run_on_trained

    return run_on_trained(evaluate, "evaluate", argv, ("sampler", "metric"), ("sampling", "cache"))


def evaluate(cfg: DictConfig) -> None:
    """Print the belief errors and the sample metrics, and write them as JSON."""
    from diffexp.apps import build
    from diffexp.apps.trained import trained
    from diffexp.files import write_text
    from diffexp.records import strict_json
    from diffexp.validation import HeldOut

    run = trained(cfg)
    parts, validation = run.parts, run.cfg.validation
    held = HeldOut(parts.data, parts.objective, parts.schedule, parts.times, validation.count, validation.batch_size)
    found = held.measure(run.denoiser)
    found |= build.prepared_metric(run.cfg, parts, run.device)(run.samples())
    for name, value in found.items():
        if "/lam_" not in name:
            print(f"{name:<34} {value:.6g}")
    out = Path(cfg.out or Path(cfg.run) / "evaluation.json")
    settings = {key: OmegaConf.to_container(run.cfg[key], resolve=True) for key in ("sampler", "metric")}
    write_text(out, strict_json({"step": run.step, **settings, "metrics": found}, indent=2) + "\n")
    print(out)
