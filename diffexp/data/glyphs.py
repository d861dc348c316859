"""A mixture that looks like handwritten digits and whose density is known."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from diffexp.data.base import Source
from diffexp.data.mixture import MixtureData
from diffexp.errors import UserError

FONT = (
    "3E63737B6F673E00",
    "0C0E0C0C0C0C3F00",
    "1E33301C06333F00",
    "1E33301C30331E00",
    "383C36337F307800",
    "3F031F3030331E00",
    "1C06031F33331E00",
    "3F3330180C0C0C00",
    "1E33331E33331E00",
    "1E33333E30180E00",
)
"""The digits 0-9 of the public-domain font8x8: one byte a row from the top, bit 0 the leftmost pixel."""


@dataclass(frozen=True)
class Digits8(Source):
    """Ten glyphs of 8 x 8 pixels, each a Gaussian with five ways to vary and a little pixel noise.

    A component's mean is its blurred glyph m in [-1, 1]; its covariance is J^T J + tau^2 I, the rows of J
    being 0.4 dm/dx and 0.4 dm/dy (shifts), 0.4 x dm/dx (slant), 0.5 (m - blur m) (thickness) and
    0.15 m (contrast). The mean variance of a pixel is 0.2147, of which 0.0576 lie within a class.

    Attributes:
        tau: Standard deviation of the pixel noise; 0 makes every component degenerate (rank 5).
    """

    tau: float = 0.05

    def load(self) -> MixtureData:
        if self.tau < 0:
            raise UserError(f"data.tau={self.tau} is a standard deviation and cannot be negative: take 0.05.")
        means = [_blur(_glyph(rows)) for rows in FONT]
        tangents = [_tangents(mean) for mean in means]
        covariances = [j.T @ j + self.tau**2 * np.eye(64) for j in tangents]
        return MixtureData(
            "digits8",
            torch.full((10,), 0.1, dtype=torch.float64),
            torch.as_tensor(np.stack(means)[:, None]),
            torch.as_tensor(np.stack(covariances)),
        )


def _glyph(rows: str) -> npt.NDArray[np.float64]:
    ink: npt.NDArray[np.uint8] = np.unpackbits(
        np.frombuffer(bytes.fromhex(rows), np.uint8)[:, None], axis=1, bitorder="little"
    )
    return 2.0 * ink.astype(np.float64) - 1.0


def _blur(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Binomial blur [1, 2, 1] / 4 along both axes, edges repeated."""
    p = np.pad(image, 1, mode="edge")
    p = (p[:-2] + 2 * p[1:-1] + p[2:]) / 4
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 4


def _tangents(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p = np.pad(mean, 1, mode="edge")
    across, down = (p[1:-1, 2:] - p[1:-1, :-2]) / 2, (p[2:, 1:-1] - p[:-2, 1:-1]) / 2
    height = (np.arange(8)[:, None] - 3.5) / 3.5
    thickness = mean - _blur(mean)
    rows = [0.4 * across, 0.4 * down, 0.4 * height * across, 0.5 * thickness, 0.15 * mean]
    return np.stack(rows).reshape(5, 64)
