from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffexp.training.image_grid import save_grid


def test_a_grid_shows_the_images_row_by_row_magnified_by_whole_numbers(tmp_path: Path) -> None:
    images = torch.stack([torch.full((1, 8, 8), level) for level in (-1.0, -0.5, 0.0)])
    images[0, 0, 0, 0] = 1.0
    save_grid(images, tmp_path / "grid.png", columns=2)
    seen = np.asarray(Image.open(tmp_path / "grid.png"))
    assert seen.shape == (2 * 50 + 2, 2 * 50 + 2)  # tiles of 48 pixels, lines of 2
    assert (seen[2:8, 2:8] == 255).all(), "one white pixel became 6 x 6"
    assert (seen[8:50, 8:50] == 0).all()
    assert (seen[2:50, 52:100] == 64).all()
    assert (seen[52:100, 2:50] == 128).all()
    assert (seen[52:100, 52:100] == 255).all(), "the empty place"


def test_colours_keep_their_channels_and_large_images_their_size(tmp_path: Path) -> None:
    images = torch.zeros(1, 3, 64, 50, dtype=torch.uint8)
    images[:, 1] = 200
    save_grid(images, tmp_path / "grid.png")
    seen = np.asarray(Image.open(tmp_path / "grid.png"))
    assert seen.shape == (68, 54, 3)
    assert (seen[2:66, 2:52] == (0, 200, 0)).all()


def test_a_picture_of_a_failed_model_is_drawn_all_the_same(tmp_path: Path) -> None:
    images = torch.tensor([float("nan"), float("inf"), float("-inf")]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    save_grid(images, tmp_path / "grid.png")
    seen = np.asarray(Image.open(tmp_path / "grid.png"))
    assert [seen[10, 10 + 50 * i] for i in range(3)] == [0, 255, 0]


def test_images_that_are_neither_grey_nor_rgb_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 channels cannot be drawn"):
        save_grid(torch.zeros(1, 2, 8, 8), tmp_path / "grid.png")
