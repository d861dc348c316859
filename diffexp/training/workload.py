"""What a training step costs: counted from the network, and timed for some seconds on the device."""

import time
from typing import Any, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffexp.training.module import DiffusionModule

#: Seconds that are timed, after the warm-up, and steps of the warm-up.
_SECONDS, _WARM_UP = 2.0, 2


def step_flops(module: DiffusionModule) -> int:
    """Floating-point operations of the network's forward and backward pass over one batch.

    Matrix products, convolutions and attention, a multiplication and an addition as two. Counted over two images, for
    all that is counted is proportional to them.
    """
    denoiser, schedule = module.denoiser, module.denoiser.schedule
    x0 = module.data.heldout(few := min(2, module.batch_size)).to(next(module.parameters()).device)
    middle = sum(module.times.range(schedule)) / 2
    t = torch.full((few, 1, 1, 1), round(middle * schedule.steps) / schedule.steps, device=x0.device)
    # The counter does not count every fused kind of attention; it counts plain matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        cast(Any, denoiser.predict(x0, t).square().mean()).backward()
    denoiser.network.zero_grad()
    return counter.get_total_flops() * module.batch_size // few


def seconds_per_step(module: DiffusionModule, clip: float | None, seconds: float = _SECONDS) -> float:
    """Train for some `seconds` after a warm-up, in a bare loop with clipping and averaging; at least one step.

    Args:
        module: On its device; its weights change.
        clip: `trainer.gradient_clip_val`.
        seconds: How long.
    """
    parameters = list(module.denoiser.network.parameters())
    optimizer = module.make_optimizer(parameters)
    began, steps = 0.0, -_WARM_UP
    while steps <= 0 or time.perf_counter() - began < seconds:
        if steps == 0:
            _wait(module)
            began = time.perf_counter()
        cast(Any, module.training_step(steps + _WARM_UP, 0)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        cast(Any, optimizer).step()
        optimizer.zero_grad()
        module.ema.update(module.denoiser.network, steps + _WARM_UP)
        steps += 1
    _wait(module)
    return (time.perf_counter() - began) / steps


def _wait(module: DiffusionModule) -> None:
    device = next(module.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
