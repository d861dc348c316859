"""Kills runs with SIGKILL at bad moments, repeats their command, and compares them with an undisturbed one.

    python tools/chaos.py [--random 14] [--inside 3] [--seed 0]     (`make chaos`)

Half of the kills come at random moments of the run's life. The others come inside a write, at its n-th call: half of
a line of metrics.jsonl or of a checkpoint is on the disk, a file is written but not yet flushed, flushed but not yet
renamed, or just renamed. The package has no hook for this: the child process patches itself before it starts.
Every run is then finished, and has to end bit for bit where the undisturbed one ended.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

SETTINGS = (
    "study=s",
    "data=mixture",
    "target=v",
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "network.groups=4",
    "network.dropout=0.1",
    "training.batch_size=16",
    "training.warmup_steps=4",
    "training.log_every=5",
    "trainer.max_steps=60",
    "checkpoint.every_n_steps=8",
    "validation.every=12",
    "validation.count=64",
    "sampling.every=20",
    "sampling.grid=4",
    "sampler.steps=3",
    "metric=none",
    "logger=none",
)
#: Inside which calls the child kills itself, and how many of each an undisturbed run makes at least.
CALLS = {"line": 18, "checkpoint": 8, "fsync": 30, "rename": 30, "renamed": 30}


def die() -> NoReturn:
    """As when the power goes, but for the page cache."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_inside(call: str, n: int) -> None:
    """Patch this process, so that it dies in its n-th `call`."""
    import torch

    left = [n]

    def it_is_time() -> bool:
        left[0] -= 1
        return left[0] == 0

    write, fsync, replace, save = os.write, os.fsync, os.replace, torch.save

    def dying_write(handle: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "metrics.jsonl" and it_is_time():
            write(handle, data[: len(data) // 2])
            die()
        return write(handle, data)

    def dying_fsync(handle: int) -> None:
        if it_is_time():
            die()
        fsync(handle)

    def dying_replace(*paths: Any) -> None:
        if call == "rename" and it_is_time():
            die()
        replace(*paths)
        if call == "renamed" and it_is_time():
            die()

    def dying_save(value: object, file: Any) -> None:
        if it_is_time():
            file.write(os.urandom(5000))
            file.flush()
            die()
        save(value, file)

    if call == "line":
        os.write = dying_write
    elif call == "fsync":
        os.fsync = dying_fsync
    elif call == "checkpoint":
        torch.save = dying_save  # pyright: ignore
    else:
        os.replace = dying_replace


def started(root: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """The process id of `diffexp train` in a fork of this process, which has imported all that is heavy."""
    from diffexp.cli.main import main

    if pid := os.fork():
        return pid
    log = os.open(root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    prepare()
    os._exit(main(["train", f"root={root}", *SETTINGS]))


def wait_for_lines(root: Path, count: int, pid: int) -> None:
    """Return when the run has written so many lines of metrics, or has ended."""
    while sum(file.read_bytes().count(b"\n") for file in root.glob("s/*/seed=0/metrics.jsonl")) < count:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def ended(pid: int) -> int:
    """The exit code of a process, minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def end_state(root: Path) -> dict[str, Any]:
    """All that has to be the same: files by their bytes, checkpoints by what they hold, metrics but for their times."""
    import torch

    (run,) = root.glob("s/*/seed=0")
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "unread", "global_step")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((run / "run.json").read_text())
    return {
        **{f"last.ckpt: {key}": plain(checkpoint[key]) for key in kept},
        **{file.name: file.read_bytes() for file in sorted(run.rglob("*.png")) + sorted(run.rglob("*.safetensors"))},
        "metrics.jsonl": [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines],
        "run.json": [record["status"], record["images_seen"], record["final"]],
        "half-written files": [file.name for file in root.rglob("*.part")],
    }


def plain(value: Any) -> Any:
    """Nested values with the bytes of every tensor, to be compared with ==."""
    import torch

    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def main() -> int:
    """The number of runs that ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=14, help="kills at random moments")
    parser.add_argument("--inside", type=int, default=3, help="kills inside each kind of call")
    parser.add_argument("--calls", nargs="*", choices=CALLS, default=list(CALLS), help="which kinds of calls")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    importlib.import_module("diffexp.training.train")  # all that is heavy, once

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    assert ended(started(folder / "whole")) == 0, (folder / "whole.log").read_text()
    seconds = time.monotonic() - began
    whole = end_state(folder / "whole")
    print(f"undisturbed: {seconds:.1f} s, {len(whole['metrics.jsonl'])} lines of metrics", flush=True)
    # At a number of lines of metrics and a little later, since how fast a run goes depends on what else goes on.
    kills = [("moment", rng.randrange(len(whole["metrics.jsonl"]))) for _ in range(options.random)]
    kills += [(call, rng.randint(1, CALLS[call])) for call in options.calls for _ in range(options.inside)]
    where, wrong = Counter[str](), 0
    for number, (call, at) in enumerate(kills):
        root = folder / str(number)
        pid = started(root, (lambda: None) if call == "moment" else partial(die_inside, call, at))
        if call == "moment":
            wait_for_lines(root, at, pid)
            time.sleep(rng.uniform(0, seconds / 20))
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        place = f"{call} {at}" + ("" if code == -signal.SIGKILL else ": too late")
        where[call] += code == -signal.SIGKILL
        status = next((json.loads(file.read_text())["status"] for file in root.glob("s/*/seed=0/run.json")), "none")
        parts = len(list(root.rglob("*.part")))
        again = ended(started(root))
        now = end_state(root) if again == 0 else {"exit code": again}
        differs = sorted(key for key in whole.keys() | now.keys() if whole.get(key) != now.get(key))
        wrong += bool(differs)
        print(
            f"{number + 1:3} of {len(kills)}  {place:<22} status {status:<8} {parts} half-written  "
            f"{'DIFFERS in ' + ', '.join(differs) if differs else 'resumed: equal bit for bit'}",
            flush=True,
        )
    places = ", ".join(f"{n} at a random {c}" if c == "moment" else f"{n} inside {c}" for c, n in where.items())
    print(
        f"{sum(where.values())} kills ({places}): {wrong} of {len(kills)} runs ended "
        f"otherwise, {time.monotonic() - began:.0f} s"
    )
    if not wrong:
        shutil.rmtree(folder)
    else:
        print(f"what is left of them: {folder}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
