"""Lightning loggers, made as `logger=` says. Without W&B's server, a run is logged offline."""

import contextlib
import os
import re
import sys
from collections.abc import Generator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from diffexp.errors import UserError
from diffexp.runs.directory import RunDirectory, flat

#: Seconds for what W&B has not sent yet, which stays on the disk for `wandb sync`. A preempted run is killed half a
#: minute after its signal.
_FINISH_TIMEOUT = 10


@contextlib.contextmanager
def opened(settings: Mapping[str, Any], run: RunDirectory, config: Mapping[str, Any]) -> Generator[list[Logger]]:
    """The loggers of a run while it lasts; a run that raises is shown as failed.

    Args:
        settings: The `logger` node of the configuration.
        run: Names the run.
        config: The resolved configuration, plain.
    """
    kind = settings["kind"]
    if kind == "wandb":
        with _wandb_run(settings, run, config) as logger:
            yield [logger]
    elif kind == "none":
        yield []
    else:
        # Each start has a version of its own, so that a resumed run loses no line of an earlier one.
        logger = CSVLogger(run.path, name=kind) if kind == "csv" else TensorBoardLogger(run.path, name=kind)
        try:
            yield [logger]
        finally:
            logger.finalize("success" if run.record.get("status") == "done" else "failed")


def require_available(settings: Mapping[str, Any]) -> None:
    """Require a logger that can be opened.

    Raises:
        UserError: There is no such logger, or no such mode of it.
        UserError: Its package is not installed.
    """
    kind = settings["kind"]
    if kind not in ("wandb", "csv", "tensorboard", "none"):
        raise UserError(f"logger.kind={kind}: there are wandb, csv, tensorboard and none.")
    if kind == "wandb" and settings["mode"] not in ("offline", "online", "disabled"):
        raise UserError(f"logger.mode={settings['mode']}: there are offline, online and disabled.")
    if kind == "tensorboard" and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise UserError('logger=tensorboard needs tensorboard: pip install "diffexp[tensorboard]".')


def log_image(logger: Logger, key: str, path: str, images_seen: int) -> None:
    """Show the PNG at `path` in loggers that take pictures."""
    if isinstance(logger, WandbLogger):
        import wandb

        cast(Any, logger).experiment.log({key: wandb.Image(path), "images_seen": images_seen})
    elif isinstance(logger, TensorBoardLogger):
        import numpy as np
        from PIL import Image

        picture = np.asarray(Image.open(path).convert("RGB"))
        cast(Any, logger).experiment.add_image(key, picture, images_seen, dataformats="HWC")


@contextlib.contextmanager
def _wandb_run(settings: Mapping[str, Any], run: RunDirectory, config: Mapping[str, Any]) -> Generator[WandbLogger]:
    import wandb

    record = run.record
    # One folder for the study, since `wandb leet` and `wandb sync` read a flat one.
    folder = Path(os.environ.get("WANDB_DIR") or run.root / run.study)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {key: record[key] for key in ("target", "space", "weighting", "schedule", "times", "data", "network")}
    tags = [f"{key}={chosen[key]}" for key in ("target", "space", "schedule", "data")]
    readable = {key: value for key, value in flat(config) if not key.split(".")[-1].startswith("_")}
    arguments: dict[str, Any] = {
        "project": settings["project"],
        "entity": settings["entity"],
        "group": run.study,
        "job_type": str(record["target"]),
        "name": f"{record['target']} in {record['space']}, seed {run.seed}",
        "id": re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{run.study}-{run.config_hash}-{run.seed}"),
        "tags": [tag[:64] for tag in (*tags, *settings["tags"])],  # W&B takes no longer ones
        "config": chosen | readable,
        "dir": str(folder),
        "resume": "allow" if settings["mode"] == "online" else None,
        "settings": wandb.Settings(
            init_timeout=settings["init_timeout"], silent=True, console="off", finish_timeout=_FINISH_TIMEOUT
        ),
    }
    live = _begun(arguments, str(settings["mode"]))
    live.define_metric("images_seen", hidden=True)
    live.define_metric("*", step_metric="images_seen")
    for better in ("val/*", "fd/*", "kid/*", "fid/*"):
        live.define_metric(better, step_metric="images_seen", summary="last")
    code = 1
    try:  # not `with live`, which prints a traceback of its own
        yield WandbLogger(experiment=live)
        code = 0
    finally:
        try:
            final = cast(Mapping[str, float], run.record.get("final") or {})
            live.summary.update({**final, "status": run.record.get("status", "")})
            live.finish(exit_code=code)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(f"W&B could not finish its log ({reason}); the run's own files are complete", file=sys.stderr)


def _begun(arguments: dict[str, Any], mode: str) -> Any:
    """A W&B run in `mode`, or offline where the server cannot be reached."""
    import wandb

    if mode != "online":
        return wandb.init(mode=cast(Any, mode), **arguments)
    if not os.environ.get("WANDB_API_KEY") and not _has_key():
        reason: object = "there is no API key (run `wandb login`, or set WANDB_API_KEY)"
    else:
        try:
            return wandb.init(mode="online", **arguments)
        except (wandb.Error, OSError) as error:
            reason = " ".join(str(error).split())
            wandb.teardown()
    print(f"W&B is logged offline, to be sent later with `wandb sync`: {reason}", file=sys.stderr, flush=True)
    return wandb.init(mode="offline", **{**arguments, "resume": None})


def _has_key() -> bool:
    import netrc

    server = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return server in netrc.netrc(os.environ.get("NETRC")).hosts
    return False
