"""Which combinations of target, schedule, loss and times mean anything, found out before training."""

from collections.abc import Mapping

from omegaconf import DictConfig
from torch import Tensor

from diffexp.cli.config import choices, compose_choice
from diffexp.cli.instantiate import built
from diffexp.errors import UserError
from diffexp.invertibility import singular, trained_times
from diffexp.objective import Objective
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.weighting import published_elsewhere


def require_invertible(
    cfg: DictConfig,
    chosen: Mapping[str, str],
    objective: Objective,
    schedule: Schedule,
    times: Times,
    sampler: Sampler | None,
) -> None:
    """Require a target and a loss that are finite at the times of the training and, if there is one, of the sampler.

    Raises:
        UserError: Names the time, and the targets that are fine there.
    """
    names = f"target={chosen['target']} on schedule={chosen['schedule']}"
    trained = trained_times(times, schedule)
    sampling = " and sampling.t_start= (sampling)" if sampler else ""
    uses = {"times.t_min to times.t_max": trained}
    if sampler:
        walk = sampler.times(schedule)
        schedule.log_snr(walk.reshape(-1, 1, 1, 1))  # the last time too must exist
        uses["the sampler's times"] = walk[:-1].reshape(-1, 1, 1, 1)
    for used, t in uses.items():
        bad = t[singular(objective.target, schedule, t)]
        if bad.numel():
            fine = [name for name in choices("target") if _fine(name, cfg, schedule, t)]
            raise UserError(
                f"{names}: near t = {bad.flatten()[0].item():g}, one of {used}, the target says nothing about x0 "
                f"or eps (its gain there is 0 or infinite). Fine on them: {', '.join(fine) or 'no target'}. Or keep "
                f"off it with times.t_min=, times.t_max= (training){sampling}."
            )
    scale = objective.scale(schedule, trained)
    unusable = trained[~scale.isfinite() | (scale < 0)]
    if unusable.numel():
        raise UserError(
            f"{names} with objective.space={cfg.objective.space} weighting={chosen['weighting']}: the loss at "
            f"t = {unusable.flatten()[0].item():g} has no finite weight. Take another space or weighting, or narrow "
            "times.t_min to times.t_max."
        )


def advice(
    cfg: DictConfig, chosen: Mapping[str, str], objective: Objective, schedule: Schedule, times: Times
) -> list[str]:
    """What is allowed and likely to surprise."""
    native = objective.space is None or objective.space == objective.target
    space = chosen["target"] if cfg.objective.space == "native" else str(cfg.objective.space)
    elsewhere = published_elsewhere(objective.weighting, space)
    notes = [elsewhere] if elsewhere else []
    scale = objective.scale(schedule, trained_times(times, schedule))
    spread = (scale.max() / scale[scale > 0].min()).item()
    if not native and spread > 1e6:
        notes.append(
            f"target={chosen['target']} with objective.space={space}: the weight that converts its squared error to "
            f"that space varies by a factor of {spread:.0e} over the times used; expect noisy gradients, or narrow "
            "times.t_min to times.t_max."
        )
    return notes


def _fine(name: str, cfg: DictConfig, schedule: Schedule, t: Tensor) -> bool:
    try:
        target = built(compose_choice("target", name, cfg), Target, f"target={name}")
        return not singular(target, schedule, t).any()
    except ValueError:
        return False
