"""Everything random in training, as a function of (seed, step, purpose).

Two runs of one seed see the same images, times and noise at every step, whatever they predict, so that
a comparison of targets is paired; a run resumed at a step sees what it would have seen without the interruption.
`purpose` keeps the streams independent: drawing label noise xi for one target does not change any other number.

The key of a stream is a 128-bit hash. On the CPU it keys a Philox counter generator (torch's own CPU
generator keeps only 32 bits of a seed, so that streams would collide after some 65,000 steps); on an
accelerator it seeds the device's own generator, which keeps 64. The two give different numbers: a
comparison is paired within one kind of device.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffexp.shapes import Images


def stream_key(seed: int, step: int, purpose: str) -> int:
    """A 128-bit key: different (seed, step, purpose) give different keys."""
    digest = hashlib.blake2b(f"{seed}:{step}:{purpose}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


class Draws:
    """Streams of one seed on one device.

    Attributes:
        seed: Any integer; the run's seed.
        device: Where the numbers are made.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, torch.device(device)
        self._generator = None if self.device.type == "cpu" else torch.Generator(self.device)
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)

    def normal(self, shape: Sequence[int], step: int, purpose: str, dtype: torch.dtype = torch.float32) -> Images:
        """Unit normal images of `shape` (batch, channel, height, width)."""
        if self._generator is None:
            draw = self._philox(step, purpose).standard_normal(tuple(shape), _numpy_dtype(dtype))
            return torch.as_tensor(draw, dtype=dtype)
        generator = self._on_device(step, purpose)
        return torch.randn(*shape, generator=generator, device=self.device, dtype=dtype)

    def uniform(self, count: int, step: int, purpose: str) -> Tensor:
        """`count` numbers from [0, 1), float64."""
        if self._generator is None:
            return torch.as_tensor(self._philox(step, purpose).random(count))
        generator = self._on_device(step, purpose)
        return torch.rand(count, generator=generator, device=self.device, dtype=torch.float64)

    def choose(self, batch: int, size: int, step: int, purpose: str = "images") -> Tensor:
        """Indices of the `batch` images, of `size`, that step number `step` uses, int64 (batch,).

        Sampled without replacement, epoch by epoch, each epoch in its own order.
        """
        first, last = step * batch // size, ((step + 1) * batch - 1) // size
        orders = [self._permutation(size, epoch, purpose) for epoch in range(first, last + 1)]
        order = orders[0] if len(orders) == 1 else torch.cat(orders)
        start = step * batch - first * size
        return order[start : start + batch]

    def _draw_permutation(self, size: int, epoch: int, purpose: str) -> Tensor:
        if self._generator is None:
            return torch.as_tensor(self._philox(epoch, f"{purpose}/order").permutation(size))
        generator = self._on_device(epoch, f"{purpose}/order")
        return torch.randperm(size, generator=generator, device=self.device)

    def _philox(self, step: int, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=stream_key(self.seed, step, purpose)))

    def _on_device(self, step: int, purpose: str) -> torch.Generator:
        assert self._generator is not None
        return self._generator.manual_seed(stream_key(self.seed, step, purpose) % 2**63)


def _numpy_dtype(dtype: torch.dtype) -> type[np.float32] | type[np.float64]:
    return np.float64 if dtype == torch.float64 else np.float32
