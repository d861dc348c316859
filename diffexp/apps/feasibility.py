"""Which combinations of target, schedule, loss and times mean anything, found out before training."""

from collections.abc import Mapping

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffexp.apps.classes import built
from diffexp.apps.config import choices, compose_choice
from diffexp.objective import Objective
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.weighting import published_elsewhere


def refuse_singular(
    cfg: DictConfig,
    chosen: Mapping[str, str],
    objective: Objective,
    schedule: Schedule,
    times: Times,
    sampler: Sampler,
) -> None:
    """Refuse a target or a loss that is singular at a time that will be used.

    Raises:
        ValueError: Names the time, and the targets that are fine there.
    """
    names = f"target={chosen['target']} on schedule={chosen['schedule']}"
    trained = _trained(times, schedule)
    walk = sampler.times(schedule)
    schedule.log_snr(walk.reshape(-1, 1, 1, 1))  # the last time too must exist
    sampled = walk[:-1].reshape(-1, 1, 1, 1)
    for used, t in (("times.t_min to times.t_max", trained), ("the sampler's times", sampled)):
        bad = t[_singular(objective.target, schedule, t)]
        if bad.numel():
            fine = [name for name in choices("target") if _fine(name, cfg, schedule, t)]
            raise ValueError(
                f"{names}: near t = {bad.flatten()[0].item():g}, one of {used}, the target says nothing about x0 "
                f"or eps (its gain there is 0 or infinite). Fine on them: {', '.join(fine) or 'no target'}. Or keep "
                "off it with times.t_min=, times.t_max= (training) and sampling.t_start= (sampling)."
            )
    scale = objective.scale(schedule, trained)
    unusable = trained[~scale.isfinite() | (scale < 0)]
    if unusable.numel():
        raise ValueError(
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
    told = [elsewhere] if elsewhere else []
    scale = objective.scale(schedule, _trained(times, schedule))
    spread = (scale.max() / scale[scale > 0].min()).item()
    if not native and spread > 1e6:
        told.append(
            f"target={chosen['target']} paid in objective.space={space}: the exchange rate between the two varies by a "
            f"factor of {spread:.0e} over the times used; expect noisy gradients, or narrow times.t_min to times.t_max."
        )
    return told


def _trained(times: Times, schedule: Schedule) -> Tensor:
    """The times that training can meet, increasing."""
    ends = torch.tensor(times.range(schedule), dtype=torch.float64).reshape(-1, 1, 1, 1)
    drawn = times(schedule, torch.arange(4096, dtype=torch.float64) / 4096)
    return torch.cat([ends[:1], drawn, ends[1:]]).flatten().sort().values.reshape(-1, 1, 1, 1)


def _singular(target: Target, schedule: Schedule, t: Tensor) -> Tensor:
    """Where x0 and eps cannot be told from the target, or where its gain has just changed sign."""
    gain, parts = target.gain(schedule, t), target.coefficients(schedule, t)
    back = torch.cat([parts.b / gain, schedule.alpha(t) / gain, *parts], dim=1)
    turned = torch.cat([torch.zeros_like(gain[:1]), gain[1:] * gain[:-1]]) < 0
    return (~back.isfinite().all(1, keepdim=True)) | (gain == 0) | turned


def _fine(name: str, cfg: DictConfig, schedule: Schedule, t: Tensor) -> bool:
    try:
        target = built(compose_choice("target", name, cfg), Target, f"target={name}")
        return not _singular(target, schedule, t).any()
    except ValueError:
        return False
