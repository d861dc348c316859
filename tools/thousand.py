"""A sweep of many trivial jobs through `hydra/launcher=local`, of which some crash: none may be lost or run twice.

    python tools/thousand.py [--jobs 1000] [--crash-every 10]     (`make thousand`)

The application is plain Hydra, without torch. It crashes by an exception, by leaving without a word, and by SIGKILL.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

APP = """
import os
import signal
from pathlib import Path

import hydra
from omegaconf import OmegaConf


@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg):
    with Path(f"ran-{cfg.number}").open("a") as file:
        file.write("began\\n")
    crash = cfg.number % cfg.crash_every == 3 and cfg.number // cfg.crash_every % 3 + 1
    if crash == 1:
        raise RuntimeError("on purpose")
    if crash == 2:
        os._exit(3)
    if crash == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(f"ran-{cfg.number}").open("a") as file:
        file.write("ended\\n")


if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("config", {"number": 0, "crash_every": 0})
    main()
"""


@dataclass(frozen=True)
class Swept:
    """What came of a sweep.

    Attributes:
        marks: How often each text was found among the marks that the jobs left on the disk.
        states: How often each state was found in the sweep's output.
        code: Its exit code.
        errors: Its stderr.
        composed: Seconds until the first job was started.
        seconds: Seconds until the end.
    """

    marks: Counter[str]
    states: Counter[str]
    code: int
    errors: str
    composed: float
    seconds: float


def swept(folder: Path, jobs: int, crash_every: int, at_a_time: int, show: bool = False) -> Swept:
    """Runs the sweep in an empty folder."""
    app = folder / "app.py"
    app.write_text(APP)
    line = (
        sys.executable, app, "-m", f"number=range({jobs})", f"crash_every={crash_every}", "hydra/launcher=local",
        "hydra.launcher.gpus=[]", f"hydra.launcher.jobs={at_a_time}", "hydra.output_subdir=null", "hydra.sweep.dir=out",
        "hydra.job.chdir=false",
    )  # fmt: skip
    began = time.monotonic()
    composed, found = 0.0, list[str]()
    with (folder / "errors").open("w+") as errors:
        with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True) as sweep:
            assert sweep.stdout is not None
            for text in sweep.stdout:
                if not composed and text.startswith("#"):
                    composed = time.monotonic() - began
                found += re.findall(r"^#\d+ ([a-zA-Z]+)", text)
                if show and re.search(r"\(\d*00 of ", text):
                    print(text.strip(), flush=True)
        errors.seek(0)
        text = errors.read()
    seconds = time.monotonic() - began
    marks = Counter(file.read_text() for file in folder.glob("ran-*"))
    return Swept(marks, Counter(found), sweep.returncode, text, composed, seconds)


def right(result: Swept, jobs: int, crash_every: int) -> None:
    """Raises AssertionError if a job was lost, ran twice or is reported with another end than it had."""
    crashes = [number for number in range(jobs) if number % crash_every == 3]
    killed = sum(number // crash_every % 3 == 2 for number in crashes)
    assert result.marks == Counter({"began\nended\n": jobs - len(crashes), "began\n": len(crashes)}), result.marks
    ends = {"started": jobs, "done": jobs - len(crashes), "FAILED": len(crashes) - killed, "KILLED": killed}
    assert result.states == Counter(ends), result.states
    assert result.code == 1
    assert f"{len(crashes)} of {jobs} jobs failed" in result.errors, result.errors


def main() -> None:
    """Runs the sweep and one of its jobs by itself, and prints what a job costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--crash-every", type=int, default=10)
    parser.add_argument("--at-a-time", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thousand-") as name:
        folder = Path(name)
        result = swept(folder, args.jobs, args.crash_every, args.at_a_time, show=True)
        right(result, args.jobs, args.crash_every)
        # As many side by side as in the sweep, with the machine as busy as it is.
        alone = (sys.executable, folder / "app.py", "number=0", "crash_every=7", "hydra.output_subdir=null")
        began = time.monotonic()
        for _ in range(10):
            for process in [subprocess.Popen(alone, cwd=folder) for _ in range(args.at_a_time)]:
                process.wait()
        one = (time.monotonic() - began) / 10
    print(f"{args.jobs} jobs, {args.at_a_time} at a time: none lost, none twice, {dict(result.states)}")
    ran = result.seconds - result.composed
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"composed in {result.composed:.1f} s ({1e3 * result.composed / args.jobs:.0f} ms for each job)")
    slot = args.at_a_time * ran / args.jobs
    print(f"ran in {ran:.0f} s: {slot:.2f} s for a job in its slot, {one:.2f} s without the launcher")
    print(f"the sweep's own process took {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
