"""Every test starts in float64, from one seed, on one thread, and with the log handlers of the first."""

import gc
import importlib
import logging
import sys
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection(session: pytest.Session) -> None:
    """Imports what is heavy before jaxtyping, which reads no byte code of other packages, watches over an import."""
    if hasattr(session.config, "workerinput"):
        for name in ("pytorch_lightning", "torch._dynamo", "diffusers", "sklearn.datasets"):
            importlib.import_module(name)


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """Double precision, so that tolerances measure the algebra alone; a network may be made float32."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Hydra's own logging writes to the standard output of the test that set it up, which is closed by the next."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(autouse=True)
def modules_are_no_garbage() -> Iterator[None]:
    """What an import has made stays, so that no collection looks through it again: each run of training makes one."""
    known = len(sys.modules)
    yield
    if len(sys.modules) > known:
        gc.freeze()
