"""Samples number 0, 1, 2, ... of a model: the same noise for every run, whatever its target or seed."""

import dataclasses

import torch
from torch import Tensor

from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.samplers import Sampler
from diffexp.shapes import Images

_SEED = 20_061_239  # of the noise that samples start from: one for all runs


class Samples:
    """Calls of `samples(first, count)` give those samples of a model, in [-1, 1] or nearly so.

    Args:
        denoiser: What is sampled from.
        sampler: How.
        image_shape: (channels, height, width).
        device: Where.
        batch_size: How many the network sees at once; part of what the noise is a function of.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        image_shape: tuple[int, int, int],
        device: torch.device,
        batch_size: int = 250,
    ) -> None:
        self.denoiser, self.sampler, self.image_shape = denoiser, sampler, image_shape
        self.draws, self.device, self.batch_size = Draws(_SEED), device, batch_size
        self.fresh = Draws(_SEED, device)

    def __call__(self, first: int, count: int) -> Images:
        parts: list[Tensor] = []
        for block in range(first // self.batch_size, -(-(first + count) // self.batch_size)):
            start = block * self.batch_size
            low, high = max(first, start) - start, min(first + count, start + self.batch_size) - start
            parts.append(self._block(block, high)[low:])
        return torch.cat(parts)

    def unclipped(self) -> "Samples":
        """The same samples without clamping the predicted x0."""
        sampler = dataclasses.replace(self.sampler, clip=False)
        return Samples(self.denoiser, sampler, self.image_shape, self.device, self.batch_size)

    def _block(self, block: int, count: int) -> Images:
        shape = (self.batch_size, *self.image_shape)
        # The start is drawn on the CPU, the same for every device; the noise of a thousand strides where it is used.
        x = self.sampler.start(self.denoiser.schedule, self.draws.normal(shape, block, "start").to(self.device)[:count])
        return self.sampler(
            self.denoiser, x, noise=lambda stride: self.fresh.normal(shape, block, f"stride {stride}")[:count]
        )
