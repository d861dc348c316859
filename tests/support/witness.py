"""A network that notes what it is trained on, for runs whose processes a test cannot look into."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Witness(nn.Module):
    """One convolution that is told the time; its training inputs go to $WITNESS/<rank>-<call>.npz.

    With $WITNESS_FAILS=<rank>, that rank gives up at its third call; with $WITNESS_DAWDLES=<rank>, it takes its time.
    """

    def __init__(self, image_shape: tuple[int, int, int], **_: Any) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(image_shape[0] + 1, image_shape[0], 3, padding=1)
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.training:  # the averaged network never is
            rank = os.environ.get("RANK", "0")
            if self.calls == 2 and os.environ.get("WITNESS_FAILS") == rank:
                raise RuntimeError("the witness gives up")
            np.savez(Path(os.environ["WITNESS"]) / f"{rank}-{self.calls}.npz", x=x.numpy(), t=t.numpy())
            self.calls += 1
            if os.environ.get("WITNESS_DAWDLES") == rank:
                time.sleep(0.5)
        return self.convolution(torch.cat([x, t.to(x.dtype).expand_as(x[:, :1])], dim=1))
