"""Lightning loggers, made as `logger=` says. W&B never costs a run: what cannot be reached is logged offline."""

import contextlib
import os
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from diffexp.runs import RunDirectory, flat


@contextlib.contextmanager
def opened(settings: Mapping[str, Any], run: RunDirectory, config: Mapping[str, Any]) -> Generator[list[Logger]]:
    """The loggers of a run while it lasts; a run that raises is shown as failed.

    Args:
        settings: The `logger` node of the configuration.
        run: Names the run.
        config: The resolved configuration, plain.
    """
    match settings["kind"]:
        case "wandb":
            with _wandb_run(settings, run, config) as logger:
                yield [logger]
        case "csv" | "tensorboard" as kind:
            logger = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}[kind](run.path, name=kind, version="")
            try:
                yield [logger]
            finally:
                logger.finalize("finished")
        case "none":
            yield []
        case other:
            raise ValueError(f"logger.kind={other}: there are wandb, csv, tensorboard and none.")


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
    readable = {key: value for key, value in flat(config) if not key.split(".")[-1].startswith("_")}
    arguments: dict[str, Any] = {
        "project": settings["project"],
        "entity": settings["entity"],
        "group": run.study,
        "job_type": str(record["target"]),
        "name": f"{record['target']} in {record['space']}, seed {run.seed}",
        "id": f"{run.study}-{run.config_hash}-{run.seed}",
        "tags": [*(f"{key}={chosen[key]}" for key in ("target", "space", "schedule", "data")), *settings["tags"]],
        "config": chosen | readable,
        "dir": str(folder),
        "resume": "allow" if settings["mode"] == "online" else None,
        "settings": wandb.Settings(init_timeout=settings["init_timeout"], silent=True, console="off"),
    }
    with _begun(arguments, str(settings["mode"])) as live:
        live.define_metric("images_seen", hidden=True)
        live.define_metric("*", step_metric="images_seen")
        for better in ("val/*", "fd/*", "kid/*", "fid/*"):
            live.define_metric(better, step_metric="images_seen", summary="last")
        yield WandbLogger(experiment=live)
        final = cast(Mapping[str, float], run.record.get("final") or {})
        live.summary.update({**final, "status": run.record.get("status", "")})


def _begun(arguments: dict[str, Any], mode: str) -> Any:
    """A W&B run in `mode`, or offline where the server cannot be had."""
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

    with contextlib.suppress(OSError, netrc.NetrcParseError):
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
        return any("wandb" in host for host in hosts)
    return False
