"""Settings that no run can have, refused before anything is made."""

from collections.abc import Callable
from typing import TypeAlias

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.cli.identity import plain
from diffexp.io.redact import secret_in
from diffexp.runs.directory import flat


def refuse_settings(cfg: DictConfig) -> None:
    """Refuse settings that no run can have.

    Raises:
        ValueError: Names the key as typed, and what it may be.
    """
    wrong = _wrong(cfg, _NUMBERS)
    for key, why in _OURS.items():
        if OmegaConf.select(cfg, key) is not None:
            wrong.append(f"{key}={OmegaConf.select(cfg, key)}: {why}")
    for key, value in flat(plain(cfg)):
        if reason := secret_in(key, value):
            wrong.append(
                f"{key}: {reason}, and a run's configuration is written into its directory. Leave it in the "
                "environment: W&B and the Hugging Face hub read WANDB_API_KEY and HF_TOKEN themselves."
            )
    if wrong:
        raise ValueError("\n".join(wrong))


def refuse_processes(cfg: DictConfig, processes: int, mode: RunMode | None) -> None:
    """Refuse what several processes cannot train together.

    Raises:
        ValueError: A sweep, or a batch that does not part into equal shares.
    """
    size = int(cfg.training.batch_size)
    if processes > 1 and mode is RunMode.MULTIRUN:
        raise ValueError(
            f"a sweep (-m) in {processes} processes (WORLD_SIZE={processes}): processes that torchrun starts train one "
            "run together. Leave torchrun out, and every run is trained in one process; or start torchrun once for "
            "each run, without -m (and with hydra.mode=RUN after an experiment= that is a sweep)."
        )
    if size % processes:
        raise ValueError(
            f"training.batch_size={size} cannot be shared by {processes} processes (WORLD_SIZE={processes}): it counts "
            f"the images of all, and each takes as many. Take {max(size // processes, 1) * processes}."
        )


def refuse_weights(cfg: DictConfig) -> None:
    """Refuse to take up other weights of a run than those that it keeps.

    Raises:
        ValueError: Says which there are.
    """
    _refuse(cfg, _WEIGHTS)


def refuse_likelihood(cfg: DictConfig) -> None:
    """Refuse settings with which no likelihood can be measured.

    Raises:
        ValueError: Names the key as typed, and what it may be.
    """
    _refuse(cfg, _LIKELIHOOD)


def _refuse(cfg: DictConfig, table: "Table") -> None:
    if wrong := _wrong(cfg, table):
        raise ValueError("\n".join(wrong))


def _wrong(cfg: DictConfig, table: "Table") -> list[str]:
    return [
        f"{key}={value}: must be {must}, for example {example}."
        for key, must, example, fine in table
        if not fine(value := OmegaConf.select(cfg, key))
    ]


def _whole(low: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def _from_to_below(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int | float) and low <= value < high


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


Table: TypeAlias = tuple[tuple[str, str, str, Callable[[object], bool]], ...]
"""For each key, what it must be, an example, and whether a value is that."""

_NUMBERS: Table = (
    ("seed", "a whole number", "0", lambda value: isinstance(value, int)),
    ("trainer.max_steps", "a whole number, 1 or more", "10_000", _whole(1)),
    ("trainer.devices", "1 (torchrun trains one run on several GPUs: docs/clusters.md)", "1", lambda value: value == 1),
    ("training.batch_size", "a whole number, 1 or more", "128", _whole(1)),
    ("training.log_every", "a whole number, 1 or more", "50", _whole(1)),
    ("training.warmup_steps", "a whole number, 0 or more", "200", _whole(0)),
    ("training.ema_decay", "from 0 to below 1", "0.999", _from_to_below(0.0, 1.0)),
    ("validation.every", "a whole number, 1 or more", "2000", _whole(1)),
    ("validation.count", "a whole number, 1 or more", "1024", _whole(1)),
    ("validation.batch_size", "a whole number, 1 or more", "256", _whole(1)),
    ("validation.bound", "beta, beta_tilde or null", "beta", _one_of("beta", "beta_tilde", None)),
    ("sampling.grid", "a whole number, 1 or more", "64", _whole(1)),
    ("sampling.every", "null, or a whole number, 1 or more", "1000", lambda value: value is None or _whole(1)(value)),
    ("checkpoint.every_n_steps", "a whole number, 1 or more", "2000", _whole(1)),
    ("objective.normalize", "true or false", "true", lambda value: isinstance(value, bool)),
    ("fail_fast", "true or false", "false", lambda value: isinstance(value, bool)),
)

_WEIGHTS: Table = (("weights", "last or best", "last", _one_of("last", "best")),)

_LIKELIHOOD: Table = (
    ("likelihood.count", "a whole number, 0 or more", "128", _whole(0)),
    ("likelihood.steps", "null, or a whole number, 2 or more", "1000", lambda value: value is None or _whole(2)(value)),
    ("likelihood.variance", "beta, beta_tilde or optimal", "beta", _one_of("beta", "beta_tilde", "optimal")),
    ("likelihood.flow_steps", "a whole number, 1 or more", "50", _whole(1)),
    ("likelihood.flow_draws", "a whole number, 2 or more", "2", _whole(2)),
)

_OURS = {
    "trainer.accumulate_grad_batches": "each step draws its own images; raise training.batch_size instead.",
    "trainer.fast_dev_run": "set trainer.max_steps to a few steps instead.",
    "trainer.precision": "set compute.precision instead.",
    "trainer.strategy": "start the run with torchrun instead, one process per GPU: docs/clusters.md.",
    "trainer.num_nodes": "start the run with torchrun instead, one process per GPU: docs/clusters.md.",
    "trainer.logger": "set logger= instead.",
    "trainer.callbacks": "the run's own callbacks write its record.",
}
