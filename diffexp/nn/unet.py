"""The one U-Net: diffusers' UNet2DModel, called as network(x_t, t) alike for every target.

Whatever it predicts, its input is the same (x_t scaled to unit variance, the time in the embedding's range), it starts
from the same weights per seed, and its last layer starts at zero, so that every run begins at the zero prediction.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffexp.errors import UserError
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage


class OutsideAutocast(nn.Module):
    """A layer outside autocast, so that the network's output is not rounded to bfloat16.

    Converting a prediction divides by the target's gain; for `posterior_mean` a relative error of 2^-9 in the output
    becomes one of 0.15 in the implied eps.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in the dtype of its weights."""
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.layer(x.to(next(self.layer.parameters()).dtype)))


class UNet(nn.Module):
    """A U-Net over images of any height and width.

    Args:
        image_shape: (channels, height, width).
        schedule: Gives the standard deviation of x_t, by which the input is divided.
        data_std: Standard deviation of the data's pixels.
        widths: Channels per resolution; each but the first halves height and width.
        attention: Whether each resolution has self-attention.
        layers: Residual blocks per resolution.
        groups: Groups of the group norm.
        dropout: Probability of dropping a feature in training.
        conditioning: "time", or "none" for a network that does not see the noise level.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        schedule: Schedule,
        data_std: float,
        widths: Sequence[int],
        attention: Sequence[bool],
        layers: int = 2,
        groups: int = 32,
        dropout: float = 0.0,
        conditioning: Literal["time", "none"] = "time",
    ) -> None:
        super().__init__()
        if conditioning not in ("time", "none"):
            raise UserError(f"network.conditioning={conditioning}: must be time or none.")
        if len(widths) != len(attention):
            raise UserError(
                f"network.widths has {len(widths)} resolutions and network.attention {len(attention)}: give one "
                "true or false per resolution."
            )
        from diffusers.models.unets.unet_2d import UNet2DModel  # takes seconds

        self.schedule, self.data_std, self.conditioning = schedule, data_std, conditioning
        self.multiple = 2 ** (len(widths) - 1)
        model = cast(Any, UNet2DModel)(
            in_channels=image_shape[0],
            out_channels=image_shape[0],
            block_out_channels=tuple(widths),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            layers_per_block=layers,
            norm_num_groups=groups,
            dropout=dropout,
            attention_head_dim=None,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
        )
        nn.init.zeros_(model.conv_out.weight)
        nn.init.zeros_(model.conv_out.bias)
        model.conv_out = OutsideAutocast(model.conv_out)
        self.unet: nn.Module = model

    def forward(self, x_t: Images, t: PerImage) -> Images:
        """The U-Net's output, in x_t's shape; t in [0, 1]."""
        alpha, sigma = self.schedule.amplitudes(t)
        scale = (alpha.square() * self.data_std**2 + sigma.square()).rsqrt().to(x_t.dtype)
        time = t.flatten().to(x_t.dtype) * (1000.0 if self.conditioning == "time" else 0.0)
        height, width = x_t.shape[-2:]
        output = cast(Tensor, self.unet(self._pad(scale * x_t), time, return_dict=False)[0])
        top, left = (output.shape[-2] - height) // 2, (output.shape[-1] - width) // 2
        return output[..., top : top + height, left : left + width]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the U-Net in place; checkpoint keys stay, and the float64 schedule around it is not compiled."""
        cast(Any, self.unet).compile(*args, **kwargs)

    def _pad(self, x: Tensor) -> Tensor:
        """Zeros around the images, up to a multiple of the deepest resolution's stride."""
        tall, wide = -x.shape[-2] % self.multiple, -x.shape[-1] % self.multiple
        if tall == 0 and wide == 0:
            return x
        return F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
