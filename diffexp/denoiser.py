"""A network with a target and a schedule is a denoiser: ask it about x_t, read the answer in any space."""

import contextlib
from typing import cast

import torch
from torch import nn

from diffexp.errors import UserError
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage, require_per_image
from diffexp.targets import Estimate, Target


class Denoiser(nn.Module):
    """A network that answers in `target` space.

    Attributes:
        network: network(x, t) -> tensor like x, with t (batch, 1, 1, 1) in [0, 1].
        autocast: Dtype for the network's insides, bfloat16 or None. Only the network runs in it: converting
            its answer, the loss and the sampler divide by small numbers and stay in the images' own dtype.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, target: Target, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.target, self.autocast = network, schedule, target, autocast

    def predict(self, x_t: Images, t: PerImage) -> Images:
        """The network's own answer, in target space and x_t's dtype.

        Raises:
            UserError: The answer is not shaped like x_t; some shapes would otherwise be broadcast.
        """
        require_per_image(t, x_t)
        device, dtype = x_t.device.type, self.autocast
        with contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype):
            answer = cast(Images, self.network(x_t, t))
        if answer.shape != x_t.shape:
            raise UserError(
                f"{type(self.network).__name__} answered with shape {tuple(answer.shape)} to images of shape "
                f"{tuple(x_t.shape)}: a network must return one number for each of theirs."
            )
        return answer.to(x_t.dtype)

    def forward(self, x_t: Images, t: PerImage) -> Estimate:
        """The same answer, as beliefs about x0, eps and the score."""
        return self.target.solve(self.schedule, t, x_t, self.predict(x_t, t))
