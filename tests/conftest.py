"""Every test starts in float64, from one seed, on one thread."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """Double precision, so that tolerances measure the algebra alone; a network may be made float32."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
