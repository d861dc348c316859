"""Synthetic studies: run directories as training writes them, with numbers made up but plausible."""

import io
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from diffexp.io.jsonio import strict_json
from diffexp.runs.directory import RunDirectory, config_hash, samples_hash

#: A made-up level of belief error, and of the raw loss, for each target.
LEVEL = {
    "epsilon": (0.100, 0.1), "scaled_noise": (0.112, 0.04), "step_noise": (0.190, 0.01), "x0": (0.105, 0.06),
    "score": (0.180, 900.0), "v": (0.096, 0.09), "edm": (0.097, 0.09), "flow": (0.099, 0.2),
}  # fmt: skip
BANDS = range(-20, 20, 2)
MAX_IMAGES = 64_000


def write_study(
    root: Path,
    study: str = "synthetic",
    targets: Sequence[str] = ("epsilon", "scaled_noise", "x0", "score", "v"),
    seeds: Sequence[int] = (0, 1, 2),
    spaces: Sequence[str] = ("native",),
    rates: Sequence[float] = (2e-4,),
    lines: int = 200,
    validations: int = 20,
    images: bool = True,
) -> Path:
    """A finished study of every combination; the folder of the study."""
    for target in targets:
        for space in spaces:
            for rate in rates:
                for seed in seeds:
                    write_run(root, study, target, seed, space, rate, lines, validations, images)
    return root / study


def write_run(
    root: Path,
    study: str,
    target: str,
    seed: int,
    space: str = "native",
    rate: float = 2e-4,
    lines: int = 20,
    validations: int = 4,
    images: bool = True,
    status: str = "done",
    progress: float = 1.0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: object,
) -> RunDirectory:
    """One run; `progress` is the part of it that has been trained, `changes` are entries of run.json.

    `settings` are added to the configuration, section by section.
    """
    draw = random.Random(f"{seed} {target} {rate} {space}")
    shared = random.Random(seed).gauss(0, 0.004)  # what the seed does to every target alike
    config = {
        "target": {"_target_": f"diffexp.targets.{target.title().replace('_', '')}"},
        "objective": {"space": space, "normalize": True},
        "optimizer": {"lr": rate, "betas": [0.9, 0.999], "warmup_steps": 100},
        "schedule": {"_target_": "diffexp.schedule.LinearBeta", "steps": 1000},
        "times": {"t_min": 0.001, "t_max": 1.0},
        "data": {"name": "digits", "batch_size": 128},
        "sampler": {"_target_": "diffexp.samplers.Ddim", "steps": 50, "eta": 0.0, "clip": True},
        "trainer": {"max_steps": 500, "precision": "32-true", "accelerator": "cpu", "devices": 1},
        "study": study,
        "root": str(root),
        "seed": seed,
        "logger": "wandb",
    }
    for section, entries in (settings or {}).items():
        config[section] = {**cast(dict[str, Any], config.get(section, {})), **entries}
    directory = RunDirectory(root, study, (target, space, "linear_beta", "digits"), config_hash(config), seed)
    level, raw = LEVEL.get(target, (0.15, 0.1))
    level *= 1 + 0.3 * abs(math.log10(rate / 2e-4))
    zero = raw * 10
    reached = round(MAX_IMAGES * progress)
    metrics: list[dict[str, Any]] = []
    for line in range(1, lines + 1):
        seen = MAX_IMAGES * line // lines
        loss = raw * (1 + 9 * math.exp(-5 * line / lines)) * (1 + draw.gauss(0, 0.05))
        metrics.append({"images_seen": seen, "train/loss": loss, "time/images_per_second": 2000 + draw.gauss(0, 20)})
    final: dict[str, float] = {}
    for line in range(1, validations + 1):
        seen = MAX_IMAGES * line // validations
        error = (level + shared) * (1 + 6 * math.exp(-5 * line / validations)) * (1 + draw.gauss(0, 0.01))
        values = {
            "val/loss": error * raw / level,
            "val/zero_loss": zero,
            **belief(error),
        }
        metrics.append({"images_seen": seen, **values})
        final = values
    distance = {"score": 812.0, "step_noise": 140.0}.get(target, 20 * level / 0.1) * (1 + draw.gauss(0, 0.03))
    sampled = {
        "fd/classifier_1k": distance, "fd/classifier_1k/floor": 2.31,
        "kid/classifier_1k": distance / 900, "kid/classifier_1k/floor": 0.0004,
        "val/bits_per_dim": 20 * (level + shared) * (1 + draw.gauss(0, 0.004)),
    }  # fmt: skip
    metrics.append({"images_seen": MAX_IMAGES, **sampled})
    final |= sampled
    metrics = sorted((line for line in metrics if line["images_seen"] <= reached), key=lambda m: m["images_seen"])

    centres = [float(lam) for lam in range(-9, 10)]
    gain = {"x0": 1.0, "v": 0.5, "score": -1.0}.get(target, 0.0)
    weight = [math.exp(-gain * lam / 2) for lam in centres]
    command = f"diffexp train study={study} target={target} objective.space={space} optimizer.lr={rate} seed={seed}"
    record: dict[str, Any] = {
        "study": study, "target": target, "space": space, "weighting": "uniform", "schedule": "linear_beta",
        "times": "uniform", "data": "digits", "network": "tiny", "sampler": "ddim", "metric": "classifier",
        "optimizer": "adamw", "seed": seed, "config_hash": config_hash(config), "status": status,
        "samples_hash": samples_hash(config),
        "command": command, "git": "1a2b3c4d5e6f (clean)",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "diffexp": "0.1.0"}, "device": "cpu (2 threads)",
        "parameters": 1_234_567, "images_seen": reached, "max_images": MAX_IMAGES,
        "error": None, "t_min": 0.001, "t_max": 1.0, "clip": True, "loss_scale": zero,
        "effective_weight": {"log_snr": centres, "weight": [w * len(weight) / sum(weight) for w in weight],
                             "times": [1 / len(weight)] * len(weight)},
        "final": final if status in ("done", "diverged") else {},
    }  # fmt: skip
    directory.open(record | changes, config)
    with directory.metrics_file.open("a") as file:
        file.writelines(f"{strict_json(line)}\n" for line in metrics)
    if images and status == "done":
        directory.samples.mkdir(exist_ok=True)
        (directory.samples / "final.png").write_bytes(png(target, noise=distance / 800))
        (directory.samples / "data.png").write_bytes(png("data", noise=0.0))
    return directory


def belief(error: float) -> dict[str, float]:
    """The belief error in the four currencies, in total and by band."""
    values: dict[str, float] = {}
    for currency, factor in {
        "eps": lambda lam: 1.0,
        "x0": lambda lam: math.exp(-lam),
        "v": lambda lam: 1 + math.exp(-lam),
        "score": lambda lam: 1 + math.exp(lam),
    }.items():
        bands = {lo: error * factor(lo + 1) / (1 + math.exp(-(lo + 1) / 2)) for lo in BANDS if -10 <= lo < 10}
        values[f"val/belief_{currency}"] = math.fsum(bands.values()) / len(bands) if currency != "eps" else error
        values |= {f"val/belief_{currency}/lam_{lo}_{lo + 2}": value for lo, value in bands.items()}
    return values


def png(name: str, noise: float) -> bytes:
    """A grid of 5 x 5 blobs, noisier where `noise` is larger."""
    draw = random.Random(name)
    image = Image.new("L", (80, 80))
    for row in range(80):
        for column in range(80):
            radius = math.hypot(row % 16 - 8, column % 16 - 8 + 2 * math.sin(row // 16 + column // 16))
            image.putpixel((column, row), max(0, min(255, int(220 * (radius < 5) + 255 * noise * draw.gauss(0, 1)))))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def change_record(path: Path, **changes: object) -> None:
    """Edit a run.json by hand, as a hostile or careless person would."""
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))
