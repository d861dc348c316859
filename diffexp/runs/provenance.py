"""With which code a number was computed: versions, and the commit of the checkout."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("diffexp", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb", "diffusers", "numpy")


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}


def git_state() -> str | None:
    """Commit of the checkout that this package is a part of, with "+changes" if it was edited since.

    None for an installed package: the repository around its environment is somebody else's.
    """
    file = Path(__file__).resolve()
    package = file.parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file))
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
