"""The tensor shapes of this package.

Every number that belongs to one image (a time, a noise level, a loss weight) has shape (batch, 1, 1, 1) from the
start, so that it broadcasts against images and formulas never reshape.
"""

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channel height width"]
PerImage: TypeAlias = Float[Tensor, "batch 1 1 1"]


def require_per_image(t: Tensor, images: Tensor | None = None) -> None:
    """Check that a time is one number per image.

    Raises:
        ValueError: `t` is not (batch, 1, 1, 1), or its batch is not that of `images`. A 1-D time would
            otherwise be broadcast along the images' width whenever that equals the batch size.
    """
    if t.ndim != 4 or t.shape[1:] != (1, 1, 1):
        raise ValueError(
            f"a time of shape {tuple(t.shape)} is not one number per image: pass shape (batch, 1, 1, 1), "
            "for example t.reshape(-1, 1, 1, 1)."
        )
    if images is not None and images.shape[0] != t.shape[0]:
        raise ValueError(
            f"{images.shape[0]} images but {t.shape[0]} times: pass one time per image, "
            f"for example t.expand({images.shape[0]}, 1, 1, 1)."
        )
