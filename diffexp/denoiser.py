"""A network with a target and a schedule is a denoiser: its prediction can be converted to any space."""

import contextlib
from typing import cast

import torch
from torch import nn

from diffexp.errors import UserError
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage, require_per_image
from diffexp.targets import Estimate, Target


class Denoiser(nn.Module):
    """A network that predicts in `target` space.

    Attributes:
        network: network(x, t) -> tensor like x, with t (batch, 1, 1, 1) in [0, 1].
        autocast: Autocast dtype of the network, bfloat16 or None. Only the network runs in it: the conversion of
            its output, the loss and the sampler divide by small numbers and stay in the images' own dtype.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, target: Target, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.target, self.autocast = network, schedule, target, autocast

    def predict(self, x_t: Images, t: PerImage) -> Images:
        """The network's output, in target space and x_t's dtype.

        Raises:
            UserError: The output is not shaped like x_t; some shapes would otherwise be broadcast.
        """
        require_per_image(t, x_t)
        device, dtype = x_t.device.type, self.autocast
        with contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype):
            output = cast(Images, self.network(x_t, t))
        if output.shape != x_t.shape:
            raise UserError(
                f"{type(self.network).__name__} returned shape {tuple(output.shape)} for images of shape "
                f"{tuple(x_t.shape)}: a network must return a tensor of its input's shape."
            )
        return output.to(x_t.dtype)

    def forward(self, x_t: Images, t: PerImage) -> Estimate:
        """The same prediction, converted to x0, eps and the score."""
        return self.target.solve(self.schedule, t, x_t, self.predict(x_t, t))
