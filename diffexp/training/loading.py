"""`load`: a trained run as a denoiser, from its directory alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from diffexp.data.base import Source
from diffexp.denoiser import Denoiser
from diffexp.errors import UserError
from diffexp.runs.study import Run
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.data_description import DataDescription, describe_data
from diffexp.training.devices import find_device
from diffexp.training.instantiate import build_object
from diffexp.training.samples import Samples
from diffexp.training.settings import Compute
from diffexp.training.setup import make_denoiser
from diffexp.training.weights import Weights


@dataclass(frozen=True)
class LoadedRun:
    """A trained run.

    Attributes:
        run: Its files: `run.record`, `run.config`, `run.final`, `run.metrics()`.
        denoiser: The averaged network with its schedule and target: `denoiser(x_t, t)` is an Estimate (x0, eps, score).
        data: What it was trained on, in a few numbers; the data itself is not read.
        step: Training steps behind the weights.
    """

    run: Run
    denoiser: Denoiser
    data: DataDescription
    step: int

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def target(self) -> Target:
        return self.denoiser.target

    def sample(self, sampler: Sampler, count: int, first: int = 0) -> Tensor:
        """Samples number `first` to `first + count - 1`, in [-1, 1] or nearly so: the same noise for every run.

        Returns:
            (count, channels, height, width).
        """
        device = next(self.denoiser.parameters()).device
        return Samples(self.denoiser, sampler, self.data.image_shape, device)(first, count)


def load(run: str | Path | Run, weights: str = "last", accelerator: str = "auto") -> LoadedRun:
    """Load a run, whatever its target, space, schedule and network.

    Args:
        run: Its directory, `<root>/<study>/<choices>-<hash>/seed=<N>`, or the run itself.
        weights: "last": the averaged weights of its last checkpoint; "best": those with the lowest `val/belief_eps`.
        accelerator: "auto", "cpu" or "cuda".

    Raises:
        UserError: There is no such run, it has no checkpoint yet, its weights cannot be read, or a class of one's own
            that it was made of cannot be imported.
    """
    found = run if isinstance(run, Run) else Run.at(Path(run).expanduser().resolve())
    if found is None or not found.config:
        raise UserError(
            f"load({str(run)!r}): there is no run in that folder. Give a run's directory, "
            "<root>/<study>/<choices>-<hash>/seed=<N>."
        )
    config, device = found.config, find_device(accelerator)
    step, tensors = read_weights(found, weights)
    schedule = build_object(config["schedule"], Schedule, "schedule")
    target = build_object(config["target"], Target, "target")
    data = DataDescription.from_record(found.record) or describe_data(
        build_object(config["data"], Source, "data").load()
    )

    def network(**shared: Any) -> nn.Module:
        return build_object(config["network"], nn.Module, "network", **shared)

    compute = Compute(**cast(Mapping[str, Any], config["compute"]))
    denoiser = make_denoiser(
        network, schedule, target, data.image_shape, data.std, compute=compute, seed=found.seed, device=device
    )
    denoiser.network.load_state_dict(dict(tensors))
    denoiser.requires_grad_(False).eval()
    return LoadedRun(found, denoiser, data, step)


def read_weights(run: Run, which: str) -> tuple[int, Mapping[str, Tensor]]:
    """The step and the averaged weights: "last" of its last checkpoint, or "best" by `val/belief_eps`.

    Raises:
        UserError: The run has none, or they cannot be read, or are those of another configuration.
    """
    file = weights_file(run, which)
    if which == "best":
        weights = Weights.read(file, run.config)
        return weights.step, weights.tensors
    checkpoint = read_checkpoint(file, run.config)
    state: Mapping[str, Tensor] = checkpoint["state_dict"]
    prefix = "ema.network."
    averaged = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return int(checkpoint["global_step"]), averaged


def weights_file(run: Run, which: str) -> Path:
    """The file that holds the "last" or the "best" weights.

    Raises:
        UserError: The run has none, or it is a link out of the study.
    """
    if which not in ("last", "best"):
        raise UserError(f"weights={which}: choose last or best.")
    if which == "best":
        return _file(run, "best.safetensors", "at its first validation")
    return _file(run, "last.ckpt", "every checkpoint.every_n_steps and at its end")


def _file(run: Run, name: str, when: str) -> Path:
    file = run.file(f"checkpoints/{name}")
    if file is None and (run.path / "checkpoints" / name).is_file():
        raise UserError(f"run={run.path}: its {name} is a link out of the study, and is not followed. Copy it there.")
    if file is None:
        advice = f"A run writes one {when}; repeat its command to resume it."
        if run.status == "diverged":
            advice = f"It diverged before, and a run writes one {when}. Its best weights may be there: weights=best."
        raise UserError(f"run={run.path}: no checkpoint yet ({name} is missing). {advice}")
    return file
