"""A small Hydra application that knows nothing of diffexp, and sweeps of it through `hydra/launcher=local`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_conf import write

APP = """
import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    job = HydraConfig.get()
    began = time.monotonic()
    Path("ran").mkdir(exist_ok=True)
    Path(f"ran/{job.job.num}.start").touch()
    if cfg.stubborn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cfg.polite:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(cfg.say, flush=True)
    while cfg.wait_for and not Path(f"ran/{cfg.wait_for}.start").exists():  # another job, at the same time
        time.sleep(0.02)
    if cfg.sleeper or cfg.number in cfg.sleepers:
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(f"ran/{job.job.num}.pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(60)
    if cfg.number in cfg.broken:
        raise RuntimeError(f"number {cfg.number} is broken")
    time.sleep(cfg.hold)
    seen = {"text": cfg.text, "choice": cfg.group.name, "out": job.runtime.output_dir, "cwd": os.getcwd()}
    seen |= {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "MARK", "CUDA_VISIBLE_DEVICES")}
    seen |= {"argv": sys.argv[1:], "span": [began, time.monotonic()]}
    Path(f"ran/{job.job.num}.json").write_text(json.dumps(seen))
    print(f"number {cfg.number} is fine")


def finished(cfg):
    number = HydraConfig.get().job.num
    return f"number {cfg.number} is there" if Path(f"ran/{number}.json").exists() else None


if __name__ == "__main__":
    main()
"""

CONF = {
    "config.yaml": """
        defaults:
          - group: ours
          - _self_
        text: plain
        number: 0
        say: hello
        hold: 0
        broken: []
        wait_for: null
        sleeper: false
        sleepers: []
        stubborn: false
        polite: false
        hydra:
          sweep:
            dir: out/${text}
          job:
            env_set:
              MARK: set
    """,
    "group/ours.yaml": "name: ours",
}


def small_app(folder: Path) -> Path:
    """Writes the application into the folder, which is where its sweeps meet, and returns it."""
    write(folder / "pkg", {"app.py": APP, "__init__.py": ""})
    write(folder / "pkg" / "conf", {**CONF, "__init__.py": ""})
    write(folder / "more", {"group/mine.yaml": "name: mine"})
    return folder


def environment(meeting: Path) -> dict[str, str]:
    """Sweeps meet in this folder, and in no other that the machine may have."""
    without = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {key: value for key, value in os.environ.items() if key not in without} | {"TMPDIR": str(meeting)}


def command_line(*arguments: str, program: tuple[str, ...] = ("pkg/app.py",)) -> list[str]:
    """The command line of a sweep. Without `hydra.launcher.gpus=...` it is the same on a machine with GPUs."""
    mine = [] if any("launcher.gpus" in word for word in arguments) else ["hydra.launcher.gpus=[]"]
    return [sys.executable, *program, "-m", *arguments, "hydra/launcher=local", *mine]


def launched(
    folder: Path, *arguments: str, program: tuple[str, ...] = ("pkg/app.py",)
) -> subprocess.CompletedProcess[str]:
    """A whole sweep."""
    line = command_line(*arguments, program=program)
    return subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120)


def launching(folder: Path, *arguments: str, meeting: Path | None = None) -> subprocess.Popen[str]:
    """A sweep that goes on."""
    return subprocess.Popen(
        command_line(*arguments), cwd=folder, env=environment(meeting or folder), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def seen(folder: Path) -> list[dict[str, Any]]:
    """What each job that ended well has seen."""
    return [json.loads(file.read_text()) for file in sorted((folder / "ran").glob("*.json"))]


def sleepers(folder: Path, jobs: int) -> list[int]:
    """The processes of so many jobs with `sleeper`, once all of them sleep."""
    wait_until(lambda: sum(len(file.read_text().split()) for file in (folder / "ran").glob("*.pids")) == 2 * jobs)
    return [int(pid) for file in (folder / "ran").glob("*.pids") for pid in file.read_text().split()]


def wait_until(is_true: Callable[[], bool]) -> None:
    """Looks again and again, for a minute."""
    end = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
