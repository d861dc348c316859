"""An exponential moving average of a network's weights."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from diffexp.errors import UserError


class Ema(nn.Module):
    """A copy of a network whose weights follow the network's own, slowly.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that a short run is not held at its start.
    One fused call per update, without a synchronisation (torch's AveragedModel reads from the device whether it has
    averaged before, which stalls the stream every step).

    Attributes:
        network: The averaged copy.
        decay: Share of the average that survives an update, in the long run.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UserError(f"training.ema_decay={decay}: needs 0 <= decay < 1, for example 0.999.")
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._mine: list[Tensor] = list(self.network.parameters())

    def train(self, mode: bool = True) -> "Ema":
        """The average is never in training mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Move towards `network`, having moved `updates` times before."""
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        lerp = cast(Callable[[list[Tensor], list[Tensor], float], None], torch._foreach_lerp_)  # pyright: ignore
        lerp(self._mine, [p.detach() for p in network.parameters()], weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
