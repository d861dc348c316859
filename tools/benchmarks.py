"""What the framework costs, as ratios measured in one run: `make bench`.

python tools/benchmarks.py [step] [start] [report] [many] [survival]
"""

import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROUNDS = 7


def bench_step() -> None:
    """A training step, status line and metrics included, against a bare loop on the same network and batch."""
    for preset, batch, steps in (("tiny", 128, 30), ("small", 4, 8)):
        bare, ours = _step_times(preset, batch, steps)
        print(f"step, {preset} at batch {batch}: bare loop {bare * 1e3:.1f} ms, diffexp {ours * 1e3:.1f} ms")
        print(f"  ratio {ours / bare:.3f} (at most 1.05)")


def _step_times(preset: str, batch: int, steps: int) -> tuple[float, float]:
    import pytorch_lightning as pl
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from diffexp.cli.config import conf_dir
    from diffexp.data import ImageData
    from diffexp.denoiser import Denoiser
    from diffexp.objective import Objective
    from diffexp.runs.directory import RunDirectory
    from diffexp.schedule import LinearBeta
    from diffexp.targets import Epsilon
    from diffexp.times import Uniform
    from diffexp.training.callbacks import MetricsWriter, ProgressMonitor
    from diffexp.training.module import DiffusionModule, StepLoader

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"network={preset}"])
    size = 8 if preset == "tiny" else 32
    pixels = torch.randint(0, 256, (512, 1, size, size), dtype=torch.uint8)
    data, schedule = ImageData("noise", pixels, pixels), LinearBeta()
    shared = {"image_shape": (1, size, size), "schedule": schedule, "data_std": 0.5}
    network = instantiate(cfg.network, _convert_="all", _partial_=True)(**shared)
    denoiser = Denoiser(network, schedule, Epsilon())
    optimizer = instantiate(cfg.optimizer, _convert_="all")
    module = DiffusionModule(denoiser, Objective(Epsilon()), Uniform(), data, 0, optimizer, batch, 10, 0.999)

    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    stepper = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.0, fused=True)
    average = [p.detach().clone() for p in network.parameters()]

    def bare() -> list[float]:
        times = [time.perf_counter()]
        for _ in range(steps):
            x0 = pixels[torch.randint(0, 512, (batch,))].float() / 127.5 - 1
            k = torch.randint(0, 1000, (batch,))
            eps, a = torch.randn_like(x0), alpha_bar[k].reshape(-1, 1, 1, 1)
            output = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, ((k + 1) / 1000).reshape(-1, 1, 1, 1))
            torch.nn.functional.mse_loss(output, eps).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            stepper.step()
            stepper.zero_grad()
            torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 0.001)
            times.append(time.perf_counter())
        return [b - a for a, b in itertools.pairwise(times)]

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_batch_start(self, *_: object) -> None:
            self.times.append(time.perf_counter())

    def ours() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            directory = RunDirectory(Path(folder), "bench", ("v",), "0" * 8, 0)
            directory.open({"status": "running"}, {})
            clock, writer = Clock(), MetricsWriter(directory, [], lambda *_: None)
            quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
            trainer = pl.Trainer(
                max_steps=steps + 1,
                max_epochs=-1,
                accelerator="cpu",
                gradient_clip_val=1.0,
                enable_checkpointing=False,
                callbacks=[clock, ProgressMonitor(writer, "bench", every=10)],
                **quiet,
            )
            trainer.fit(module, datamodule=StepLoader(steps + 1))
            return [b - a for a, b in itertools.pairwise(clock.times)]

    bare()
    ours()
    measured = [(bare(), ours()) for _ in range(ROUNDS)]
    return median(t for b, _ in measured for t in b), median(t for _, o in measured for t in o)


def bench_start() -> None:
    """How long a person waits for help."""
    program = Path(sys.executable).parent / "diffexp"
    for words in (
        ["--help"],
        ["train", "--help"],
        ["sample", "--help"],
        ["report", "--help"],
        ["plan", "--help"],
        ["status", "--help"],
    ):
        times: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        print(f"diffexp {' '.join(words)}: {median(times):.2f} s (at most 1.5)")


def bench_report() -> None:
    """The report of a study of 100 runs, all outputs."""
    from synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), seeds=range(20))  # five targets
        seconds, _ = _taken("report", study)
        print(f"report on 100 runs: {seconds:.2f} s (at most 5)")


def bench_many() -> None:
    """A study of 1,000 runs: its report, all outputs, and its status."""
    from synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), seeds=range(20), rates=[k * 1e-4 for k in range(1, 11)])
        for words in (["report"], ["status"], ["status", "--json"]):
            seconds, gib = _taken(*words, study)
            print(f"{' '.join(words)} on 1,000 runs: {seconds:.2f} s (at most 10), {gib:.2f} GiB (at most 1)")


def _taken(*words: object) -> tuple[float, float]:
    """Seconds and peak GiB of one command."""
    program, began = str(Path(sys.executable).parent / "diffexp"), time.perf_counter()
    process = subprocess.Popen([program, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"diffexp {' '.join(map(str, words))} ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def bench_survival() -> None:
    """What locks, heartbeats, checkpoints, records and metrics take of a run: the seconds spent inside those calls."""
    from diffexp.cli import main, train
    from diffexp.io import files
    from diffexp.runs.directory import RunDirectory
    from diffexp.runs.directory import liveness as heartbeat
    from diffexp.training import checkpoints, weights
    from diffexp.training.callbacks import MetricsWriter

    spent: dict[str, float] = {}
    busy: list[str] = []  # the outermost call alone counts

    def timed(owner: object, name: str, label: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            if busy:
                return real(*args, **kwargs)
            busy.append(label)
            began = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - began
                busy.clear()

        setattr(owner, name, call)

    timed(files.FileLock, "acquire", "locks")
    timed(files.FileLock, "release", "locks")
    timed(train, "_trained_elsewhere", "locks")
    timed(heartbeat.Path, "touch", "heartbeats")
    for name in ("on_train_batch_start", "on_train_batch_end"):
        timed(checkpoints.Checkpoint, name, "checkpoints")
    timed(weights.Weights, "save", "weights")
    timed(MetricsWriter, "write", "metrics and records")
    for name in ("claim", "write_record", "remove_partial_files", "truncate_metrics"):
        timed(RunDirectory, name, "metrics and records")
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", f"root={folder}", "study=s", "data=digits", "metric=none", "logger=none"]
        began = time.perf_counter()
        code = main.main([*words, "trainer.max_steps=700", "validation.every=200", "checkpoint.every_n_steps=200"])
        seconds = time.perf_counter() - began
    assert code == 0
    parts = ", ".join(f"{label} {1e3 * part:.0f} ms" for label, part in spent.items())
    print(f"survival: {sum(spent.values()):.2f} s of a run of {seconds:.0f} s ({parts})")
    print(f"  share {100 * sum(spent.values()) / seconds:.2f} % (at most 1)")


if __name__ == "__main__":
    known = {"step": bench_step, "start": bench_start, "report": bench_report, "many": bench_many}
    known["survival"] = bench_survival
    for name in sys.argv[1:] or known:
        known[name]()
