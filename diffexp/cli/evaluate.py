"""`diffexp evaluate run=...`: trained runs measured again, with other samplers or metrics if they are named."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from diffexp.cli.load_run import LoadedRun
    from diffexp.cli.questions import Question


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.cli.questions import Question, print_table
    from diffexp.cli.run_config import run_on_trained

    questions: list[Question] = []

    def collect(cfg: DictConfig) -> None:
        questions.append(Question.of(cfg))

    code = run_on_trained(evaluate, "evaluate", argv, ("sampler", "metric"), ("sampling", "cache"), check, collect)
    if len(questions) > 1:
        print_table(questions)
    return code


def check(cfg: DictConfig) -> None:
    """Require settings with which something can be measured.

    Raises:
        UserError: A setting is wrong, there is no such run, or it has no such weights.
    """
    from diffexp.cli.load_run import require_measurable
    from diffexp.cli.run_config import require_one_output
    from diffexp.cli.schema import validate_settings

    validate_settings(cfg)
    require_one_output(cfg)
    require_measurable(cfg)


def evaluate(cfg: DictConfig) -> None:
    """Print the prediction errors, bits/dim and the sample metrics, and record them.

    A question that has been measured before with the same weights is printed from its record, unless `again=true`. With
    `out=` it is always measured, and written there instead.
    """
    from diffexp.cli.instantiate import built
    from diffexp.cli.load_run import load_run
    from diffexp.cli.questions import Question
    from diffexp.cli.run_config import require_writable
    from diffexp.gradients.diagnostics import Diagnostics
    from diffexp.io.files import write_text
    from diffexp.io.jsonio import strict_json
    from diffexp.io.redact import without_secrets

    question = Question.of(cfg)
    diagnostics = built(cfg.diagnostics, Diagnostics, "diagnostics")
    if cfg.out:
        require_writable(Path(cfg.out))
    run = load_run(cfg)
    file = Path(cfg.out) if cfg.out else require_writable(question.file(run.step))
    if not cfg.out and not cfg.again and (record := question.measured(run.step)):
        _print(cast(Mapping[str, Any], record["metrics"]))
        print(f"{file}: measured before; again=true measures it again")
        return
    metrics = _without_samples(cfg, run) | _of_samples(run, question)
    _print(metrics)
    nfe = run.parts.sampler.nfe
    found = diagnostics(run, file.parent if cfg.out else question.run.path)
    write_text(file, without_secrets(strict_json(question.record(run.step, nfe, metrics, found), indent=2)) + "\n")
    print(file)


def _without_samples(cfg: DictConfig, run: "LoadedRun") -> dict[str, float]:
    """What depends on neither sampler nor metric, measured once per process."""
    from diffexp.likelihood.held_out import Measurement, bits_per_dim

    t_start = run.cfg.sampling.t_start
    likelihood = cast(dict[str, Any], OmegaConf.to_container(cfg.likelihood))
    inputs = [str(Path(cfg.run).resolve()), cfg.weights, run.step, likelihood, t_start]
    if (key := json.dumps(inputs)) not in _measured:
        held = run.parts.held_out()
        found = held.measure(run.denoiser)
        found |= {f"{name}/optimum": value for name, value in held.optimum.items()}
        _measured[key] = found | bits_per_dim(run.denoiser, run.parts.data, Measurement(**likelihood, t_start=t_start))
    return dict(_measured[key])


_measured: dict[str, dict[str, float]] = {}


def _of_samples(run: "LoadedRun", question: "Question") -> dict[str, float]:
    from diffexp.cli import build

    if question.settings["metric"] is None:
        return {}
    return build.prepared_metric(run.cfg, run.parts, run.device)(run.samples())


def _print(metrics: Mapping[str, float | None]) -> None:
    for name, value in metrics.items():
        if "/lam_" in name or name.endswith(("/stderr", "/optimum")):
            continue
        stderr, best = metrics.get(f"{name}/stderr"), metrics.get(f"{name}/optimum")
        scatter = f" +- {stderr:.2g}" if stderr is not None else ""
        shown = "nan" if value is None else f"{value:.6g}"
        print(f"{name:<34} {shown}{scatter}" + (f"  (best possible: {best:.6g})" if best is not None else ""))
