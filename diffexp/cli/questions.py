"""What `diffexp evaluate` measures of a run, where it is recorded, and the table at the end of several."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffexp.cli.chosen import metric_names
from diffexp.cli.identity import chosen_files
from diffexp.cli.run_config import OWN, find_run
from diffexp.io.jsonio import read_json
from diffexp.report.format import count
from diffexp.runs.config_keys import NOT_MEASURED
from diffexp.runs.evaluations import (
    NO_SAMPLER,
    Evaluation,
    question_hash,
    read_evaluations,
    record_name,
    sampler_settings,
)
from diffexp.runs.provenance import versions
from diffexp.runs.study import Run

_NO_METRIC = "diffexp.metrics.samples.NoMetric"
_NO_DIAGNOSTICS = "Nothing"


@dataclass(frozen=True)
class Question:
    """One job of `diffexp evaluate`.

    Attributes:
        sampler: The choice's name; `NO_SAMPLER` where no samples are drawn.
        weights: last or best.
        settings: Everything else that decides the numbers.
    """

    run: Run
    sampler: str
    weights: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, cfg: DictConfig) -> "Question":
        """The question of this job; for use inside a Hydra application."""
        run = find_run(cfg.run)
        metric = _metric_settings(_plain(cfg.metric))
        likelihood = _plain(cfg.likelihood)
        sampling = _plain(cfg.sampling)
        settings = {
            "sampler": _plain(cfg.sampler) if metric else None,
            "metric": metric,
            "likelihood": likelihood if likelihood["count"] else {"count": 0},
            "sampling": sampling if metric else {"t_start": sampling["t_start"]},
        }
        diagnostics = _plain(cfg.diagnostics)
        if not str(diagnostics["_target_"]).endswith(f".{_NO_DIAGNOSTICS}"):
            settings["diagnostics"] = diagnostics
        return cls(run, _sampler_name(run, cfg.sampler) if metric else NO_SAMPLER, str(cfg.weights), settings)

    def file(self, step: int) -> Path:
        """Where the record of the weights of this step belongs.

        Raises:
            ValueError: The folder lies, through links, outside the study.
        """
        return self.run.place(record_name(self.sampler, self.weights, step, self.settings))

    def measured(self, step: int) -> Mapping[str, Any] | None:
        """The record of the weights of this step; None if it has not been measured with them."""
        file = self.run.file(record_name(self.sampler, self.weights, step, self.settings))
        record = read_json(file) if file else None
        return record if record and isinstance(record.get("metrics"), dict) else None

    def record(
        self, step: int, nfe: int, metrics: Mapping[str, float], diagnostics: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is written."""
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith("run=")]
        return {
            "sampler": self.sampler,
            **sampler_settings(self.settings["sampler"]),
            "nfe": nfe,
            "weights": self.weights,
            "step": step,
            "settings": self.settings,
            "metrics": metrics,
            "diagnostics": diagnostics,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"diffexp evaluate {shlex.join([f'run={self.run.path}', *words])}",
            "versions": versions(),
        }

    def found(self) -> Evaluation | None:
        """Its evaluation of the latest weights, read from the run's directory."""
        ending = f"-{question_hash(self.weights, self.settings)}"
        records = [evaluation for evaluation in read_evaluations(self.run) if evaluation.name.endswith(ending)]
        return max(records, key=lambda evaluation: evaluation.step, default=None)


def print_table(questions: Sequence[Question]) -> None:
    """One line for each question of a sweep: the run, the sampler, what a sample costs, and the metrics."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    distinct = {(each.run.path, question_hash(each.weights, each.settings)): each for each in questions}
    found = [(question, question.found()) for question in distinct.values()]
    keys = _shown([evaluation for _, evaluation in found if evaluation])
    table = Table("run", "sampler", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("NFE", "weights", *keys):
        table.add_column(name, justify="right")
    for question, evaluation in found:
        head = f"{question.run.name}/{question.run.path.name}", _words(question)
        if evaluation is None:
            table.add_row(*head, "", "not measured")
            continue
        values = [f"{evaluation.metrics[key]:.5g}" if key in evaluation.metrics else "-" for key in keys]
        table.add_row(*head, f"{evaluation.nfe}", f"{evaluation.weights} {count(evaluation.step)}", *values)
    terminal = Console(highlight=False)
    (terminal if terminal.is_terminal else Console(highlight=False, width=160)).print(table)


def _words(question: Question) -> str:
    """The sampler with its settings, "ddim 50 eta=0.5"."""
    settings = sampler_settings(question.settings["sampler"])
    words = [question.sampler] + ([] if settings["steps"] is None else [f"{settings['steps']}"])
    if settings["eta"]:
        words.append(f"eta={settings['eta']:g}")
    if settings["grid"] not in (None, "time"):
        words.append(f"grid={settings['grid']}")
    return " ".join(words)


def _shown(evaluations: Sequence[Evaluation]) -> list[str]:
    """The metrics of samples; where there are none, what else was measured."""
    keys = list(dict.fromkeys(key for each in evaluations for key in each.metrics))
    of_samples = [key for key in keys if key.count("/") == 1 and key.partition("/")[0] not in ("val", "bits_per_dim")]
    return of_samples or [key for key in keys if key in ("val/belief_eps", "bits_per_dim/vlb", "bits_per_dim/flow")]


def _plain(node: object) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cast(DictConfig, node), resolve=True))


def _metric_settings(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """Without what moves no number, and with a count for each of the features; None where nothing is measured."""
    if node.get("_target_") == _NO_METRIC:
        return None
    settings = {key: value for key, value in node.items() if f"metric.{key}" not in (*NOT_MEASURED, "metric._convert_")}
    if isinstance(settings.get("count"), int) and (names := metric_names({"features": settings.get("features")})):
        settings["count"] = dict.fromkeys(names, settings["count"])
    return settings


def _sampler_name(run: Run, node: DictConfig) -> str:
    name = chosen_files().get("sampler", OWN)
    return name if name != OWN else run.text("sampler") or str(node.get("_target_")).rpartition(".")[2]
