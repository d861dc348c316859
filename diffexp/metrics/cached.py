"""Tensors that are computed once, by the first process that needs them, and read by all others."""

import contextlib
import glob
import hashlib
import re
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffexp.errors import UserError
from diffexp.io.files import locked, replacing, try_locked

Tensors: TypeAlias = dict[str, Tensor]


def fingerprint(*parts: object) -> str:
    """The sha256 of the parts' printed forms: differs when any part does."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()


def source_fingerprint(*files: str) -> str:
    """The sha256 of source files, so that results of older code are not reused."""
    return fingerprint(*(Path(file).read_bytes() for file in files))


def content_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors' names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cache_file(cache: Path, kind: str, of: str, wanted: str) -> Path:
    """The file of a fingerprint, always inside `cache`: `of` is for people, and may come from a configuration.

    Args:
        cache: The folder for everything that is computed once.
        kind: Its folder in there.
        of: What it is made of, in words.
        wanted: The fingerprint.
    """
    return cache / kind / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', of)[:80]}-{wanted[:16]}.safetensors"


def cached(path: Path, wanted: str, build: Callable[[], Tensors]) -> Tensors:
    """The result of `build`, read from `path` if that holds it.

    Of several concurrent processes one builds and the others wait for its file. A file that is damaged, or
    made for something else, is ignored with a message, and rebuilt.

    Args:
        path: A safetensors file, written atomically.
        wanted: Fingerprint of everything that the result depends on.
        build: Computes the tensors; called at most once.

    Raises:
        UserError: The folder cannot be written to.
    """
    if path.exists() and isinstance(found := _read(path, wanted), dict):
        return found
    with _locked(path):
        if path.exists():
            found = _read(path, wanted)
            if isinstance(found, dict):
                return found
            print(f"{path} is ignored: {found}; it is computed again.", flush=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote; it had the lock, so it is dead
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in build().items()}
        with replacing(path) as part:
            content = content_fingerprint(tensors)
            part.write_bytes(save(tensors, {"fingerprint": wanted, "content": content}))
        return tensors


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """`files.locked`, with a message while waiting, and an error that names the setting if the folder is read-only."""
    with contextlib.ExitStack() as held:
        try:
            if not held.enter_context(try_locked(path, seconds=2.0)):
                print(f"waiting for another process that is making {path} ...", file=sys.stderr, flush=True)
                held.enter_context(locked(path))
        except OSError as error:
            raise UserError(
                f"{path} is not there yet and cannot be made ({error}). Name a folder that can be written to, best on "
                "a disk of this machine: cache=FOLDER, or DIFFEXP_CACHE."
            ) from error
        yield


def _read(path: Path, wanted: str) -> Tensors | str:
    """The file's tensors, or the reason why it cannot be used."""
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("fingerprint") != wanted:
                return "it was made for other data, features or code"
            names: list[str] = file.keys()
            tensors: Tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        return f"it is damaged ({error})"
    if metadata.get("content") != content_fingerprint(tensors):
        return "it is damaged (its content does not have the recorded sha256)"
    return tensors
