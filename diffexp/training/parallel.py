"""One training step on several devices: each rank takes its share of the batch, and the gradients are averaged.

    gradient = 1 / world_size  sum over ranks of  gradient of the mean loss of that rank's images

which is the gradient of the mean over the whole batch, since all shares have the same size.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Share:
    """The part of every batch that is this process's; the whole of it where there is one process.

    Attributes:
        rank: Of this process, from 0.
        world_size: How many there are; they are in torch's process group when the first step begins.
    """

    rank: int = 0
    world_size: int = 1

    def of(self, batch: Tensor) -> Tensor:
        """Every `world_size`-th row: training times are stratified, so that neighbours are equally noisy."""
        return batch[self.rank :: self.world_size]

    def averaging(self, network: nn.Module) -> nn.Module:
        """The network, with gradients that are averaged over all ranks as they are computed."""
        if self.world_size == 1:
            return network
        return DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over all ranks; on a GPU nobody waits for it."""
        if self.world_size > 1:
            value = value.clone()
            cast(Any, dist).all_reduce(value)
            value /= self.world_size
        return value
