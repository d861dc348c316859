"""Blocks of code whose random numbers and sums are always the same, and that leave no trace of it."""

import contextlib
from collections.abc import Generator

import torch


@contextlib.contextmanager
def fixed_draws() -> Generator[None]:
    """The CPU's global generator starts at a fixed seed, and afterwards is as it was before.

    For libraries that take no generator. torch.manual_seed would reseed the accelerator too.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextlib.contextmanager
def deterministic_algorithms(device: torch.device) -> Generator[None]:
    """Sums in a fixed order: all of them on the CPU, cuDNN's on a GPU.

    The rest needs an environment variable of CUDA that must be set before the process starts.
    """
    algorithms, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(device.type == "cpu" or algorithms)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        torch.backends.cudnn.deterministic = cudnn
