"""`diffexp evaluate run=...`: a trained run measured again, with another sampler or metric if one is named."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.cli.run_config import run_on_trained

    return run_on_trained(evaluate, "evaluate", argv, ("sampler", "metric"), ("sampling", "cache"), check)


def check(cfg: DictConfig) -> None:
    """Refuse settings of the likelihood, and weights, that cannot be had.

    Raises:
        ValueError: Names the setting as typed, and what it may be.
    """
    from diffexp.cli.schema import validate_settings

    validate_settings(cfg)


def evaluate(cfg: DictConfig) -> None:
    """Print the belief errors, bits/dim and the sample metrics, and write them as JSON."""
    from diffexp.cli import build
    from diffexp.cli.diagnostics import Diagnostics
    from diffexp.cli.instantiate import built
    from diffexp.cli.likelihoods import bits_per_dim
    from diffexp.cli.load_run import trained
    from diffexp.cli.run_config import output
    from diffexp.io.files import write_text
    from diffexp.io.jsonio import strict_json

    out = output(cfg, "evaluation.json")
    diagnostics = built(cfg.diagnostics, Diagnostics, "diagnostics")
    run = trained(cfg)
    held = run.parts.held_out()
    found = held.measure(run.denoiser)
    found |= {f"{name}/optimum": value for name, value in held.optimum.items()}
    found |= bits_per_dim(run, cfg.likelihood)
    found |= build.prepared_metric(run.cfg, run.parts, run.device)(run.samples())
    for name, value in found.items():
        if "/lam_" not in name and not name.endswith(("/stderr", "/optimum")):
            scatter, best = found.get(f"{name}/stderr"), found.get(f"{name}/optimum")
            said = f" +- {scatter:.2g}" if scatter is not None else ""
            print(f"{name:<34} {value:.6g}{said}" + (f"  (best possible: {best:.6g})" if best is not None else ""))
    settings = {key: OmegaConf.to_container(run.cfg[key], resolve=True) for key in ("sampler", "metric")}
    settings["likelihood"] = OmegaConf.to_container(cfg.likelihood)
    told = {"weights": cfg.weights, "step": run.step, "nfe": run.parts.sampler.nfe, **settings, "metrics": found}
    told["diagnostics"] = diagnostics(run, out.parent)
    write_text(out, strict_json(told, indent=2) + "\n")
    print(out)
