"""On which device a run is trained, and in which precision."""

import contextlib
from collections.abc import Generator
from typing import Any, cast

import torch

from diffexp.errors import UserError
from diffexp.training.distributed import World


def find_device(accelerator: str = "auto") -> torch.device:
    """The device that `accelerator` ("auto", "cpu", "gpu" or "cuda") names; of several processes, each has its own GPU.

    Raises:
        UserError: There is no such accelerator here, or there are too few of them.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise UserError(f"trainer.accelerator={accelerator}: choose auto, cpu or cuda.")
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"trainer.accelerator={accelerator}: torch sees no GPU. Set trainer.accelerator=cpu.")
    here, gpus = World.from_environ(), torch.cuda.device_count()
    if here.size > 1 and gpus > 1:  # a scheduler may show each process its own GPU alone
        if here.local_size > gpus:
            raise UserError(
                f"{here.local_size} processes on this machine, but torch sees {gpus} GPUs: start one process per GPU."
            )
        torch.cuda.set_device(here.local_rank)
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """As run.json has it: "cpu", or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "32" or "bf16", with "auto" resolved for the device.

    Raises:
        UserError: There is no such precision.
    """
    if precision not in ("auto", "32", "bf16"):
        raise UserError(f"compute.precision={precision}: choose auto, 32 or bf16.")
    return ("bf16" if device.type == "cuda" else "32") if precision == "auto" else precision


def resolve_auto(name: str, setting: object, device: torch.device) -> bool:
    """An on/off setting of `compute`, with "auto" resolved for the device: on with a GPU.

    Raises:
        UserError: It is none of auto, true and false.
    """
    if setting not in ("auto", True, False):
        raise UserError(f"compute.{name}={setting}: choose auto, true or false.")
    return device.type == "cuda" if setting == "auto" else bool(setting)


@contextlib.contextmanager
def seeded(key: int) -> Generator[None]:
    """Run a block with torch's generators seeded with `key`, and restore them afterwards."""
    here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with cast(Any, torch.random).fork_rng(devices=here):
        cast(Any, torch).manual_seed(key % 2**63)
        yield
