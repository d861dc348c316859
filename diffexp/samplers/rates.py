"""Derivatives of the schedule for samplers that step in t itself."""

import torch

from diffexp.errors import UserError
from diffexp.schedule import Schedule


def rates(schedule: Schedule, t: float) -> tuple[float, float]:
    """(d alpha / dt, d sigma / dt), in float64."""
    d_alpha, d_sigma = schedule.rates(torch.full((1, 1, 1, 1), t, dtype=torch.float64))
    return d_alpha.item(), d_sigma.item()


def refuse_chain(method: str, schedule: Schedule) -> None:
    """Refuse a schedule without rates.

    A chain's log-SNR could be differentiated between its steps, but jumps to infinity before the first, so that no
    path in t leads to the image.

    Raises:
        UserError: The schedule is a chain.
    """
    if schedule.is_chain:
        raise UserError(
            f"{method} moves by d alpha / dt, and the chain {schedule!r} has none. Take schedule=linear_beta_cont, the "
            "equation that DDPM's chain discretises; or on the chain sampler=ancestral in place of the reverse SDE, "
            "sampler=ddim or heun in place of the probability flow."
        )
