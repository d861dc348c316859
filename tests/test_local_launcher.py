"""`hydra/launcher=local` on small real Hydra applications that know nothing of diffexp."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_conf import write

from hydra_plugins.diffexp_local_launcher._narrator import Narrator, duration

APP = """
import json
import os
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    job = HydraConfig.get()
    start = time.time()
    Path("ran").mkdir(exist_ok=True)
    Path(f"ran/{job.job.num}.start").touch()
    if cfg.wait_for:  # another job, which must be running at the same time
        while not Path(f"ran/{cfg.wait_for}.start").exists():
            time.sleep(0.02)
    if cfg.sleeper or cfg.number in cfg.sleepers:
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(f"ran/{job.job.num}.pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(60)
    if cfg.number in cfg.broken:
        raise RuntimeError(f"number {cfg.number} is broken")
    seen = {"text": cfg.text, "choice": cfg.group.name, "out": job.runtime.output_dir, "cwd": os.getcwd()}
    seen |= {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "MARK")} | {"argv": sys.argv[1:]}
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
        broken: []
        wait_for: null
        sleeper: false
        sleepers: []
        hydra:
          sweep:
            dir: out/${text}
          job:
            env_set:
              MARK: set
    """,
    "group/ours.yaml": "name: ours",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "pkg", {"app.py": APP, "__init__.py": ""})
    write(tmp_path / "pkg" / "conf", {**CONF, "__init__.py": ""})
    write(tmp_path / "more", {"group/mine.yaml": "name: mine"})
    return tmp_path


def launched(
    folder: Path, *arguments: str, program: tuple[str, ...] = ("pkg/app.py",)
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, *program, "-m", *arguments, "hydra/launcher=local"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "ran").glob("*.json"))]


def test_as_many_jobs_run_at_a_time_as_there_are_slots(folder: Path) -> None:
    """The first waits for the second to have started; in a row it would wait for ever. They share the cores."""
    done = launched(folder, "hydra.launcher.jobs=2", "wait_for=1", "number=0,1")
    assert done.returncode == 0, done.stderr
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [job["OMP_NUM_THREADS"] for job in seen(folder)] == [str(threads)] * 2


def test_jobs_wait_for_a_slot_and_a_failing_one_does_not_stop_the_others(
    folder: Path,
) -> None:
    done = launched(folder, "hydra.launcher.jobs=1", "broken=[0,2]", "number=0,1,2")
    states = re.findall(r"^#(\d) (started|done|FAILED)", done.stdout, re.M)
    ends = {"0": "FAILED", "1": "done", "2": "FAILED"}
    assert states == [(number, state) for number, end in ends.items() for state in ("started", end)]
    assert re.search(r"#2 FAILED \(exit code 1\).*\n    RuntimeError: number 2 is broken", done.stdout)
    assert "Traceback" in (folder / "out" / "plain" / "logs" / "2.log").read_text()
    assert done.returncode == 1
    assert "2 of 3 jobs failed" in done.stderr
    assert "0.log, 2.log" in done.stderr


def test_with_fail_fast_the_first_failure_ends_those_that_run_and_no_more_are_started(folder: Path) -> None:
    """The second job sleeps for a minute; the first fails once the second has started."""
    began = time.monotonic()
    choice = ("number=0,1,2", "broken=[0]", "sleepers=[1]", "wait_for=1")
    done = launched(folder, "hydra.launcher.jobs=2", "hydra.launcher.fail_fast=true", *choice)
    assert time.monotonic() - began < 50
    assert done.returncode == 1
    assert "#0 FAILED (exit code 1)" in done.stdout
    assert "1 of 3 jobs failed" in done.stderr
    assert not (folder / "ran" / "2.start").exists()
    pids = [pid for file in (folder / "ran").glob("1.pids") for pid in file.read_text().split()]
    assert not [pid for pid in pids if alive(int(pid))]


def test_overrides_arrive_unchanged(folder: Path) -> None:
    texts = ['b c, "e" [f] {g: 1} (h) $x = é 100% \\', "it's", ""]
    quoted = ["'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" for text in texts]
    done = launched(folder, f"text={','.join(quoted)}", "hydra.sweep.dir='a b/(c)'")
    assert done.returncode == 0, done.stderr
    assert [job["text"] for job in seen(folder)] == texts
    assert [job["out"] for job in seen(folder)] == [f"{folder}/a b/(c)/{n}" for n in range(len(texts))]


def test_a_job_has_the_folders_and_environment_of_its_sweep(folder: Path) -> None:
    done = launched(folder, "--config-dir", "more", "group=ours,mine", "+hydra.job.env_set.OMP_NUM_THREADS='3'")
    assert done.returncode == 0, done.stderr
    for number, (job, choice) in enumerate(zip(seen(folder), ("ours", "mine"), strict=True)):
        assert job["choice"] == choice
        assert job["out"] == f"{folder}/out/plain/{number}"
        assert (job["cwd"], job["OMP_NUM_THREADS"], job["MARK"]) == (str(folder), "3", "set")


def test_a_jobs_log_opens_with_a_command_that_repeats_it(folder: Path) -> None:
    """Also for a module, which is started again as a module."""
    done = launched(folder, "text='a, b'", "number=8", program=("-m", "pkg.app"))
    assert done.returncode == 0, done.stderr
    log = (folder / "out" / "a, b" / "logs" / "0.log").read_text().splitlines()
    assert log[-1] == "number 8 is fine"
    (before,) = seen(folder)
    (folder / "ran" / "0.json").unlink()
    environment = {**os.environ, "OMP_NUM_THREADS": before["OMP_NUM_THREADS"]}
    subprocess.run(shlex.split(log[0].removeprefix("$ ")), cwd=folder, env=environment, check=True)
    assert seen(folder) == [before]


def test_jobs_that_the_application_calls_finished_are_not_started(folder: Path) -> None:
    line = ("number=7,8,9", "+hydra.launcher.skip=pkg.app.finished", "hydra.launcher.jobs=1")
    module = ("-m", "pkg.app")
    assert launched(folder, *line, program=module).returncode == 0
    (folder / "ran" / "1.json").unlink()
    done = launched(folder, *line, program=module)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^#(\d) (skipped|started|done)", done.stdout, re.M) == [
        ("0", "skipped"), ("2", "skipped"), ("1", "started"), ("1", "done")
    ]  # fmt: skip
    assert "#0 skipped: number=7\n    number 7 is there" in done.stdout
    assert "(1 of 1)" in done.stdout
    done = launched(folder, *line, program=module)
    assert done.returncode == 0, done.stderr
    assert "started" not in done.stdout
    assert done.stdout.count("skipped") == 3


def test_no_end_is_foretold_while_a_job_outlasts_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of those that ended says nothing about a job that has run for longer."""
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    for log in logs:
        log.touch()
    narrator = Narrator(logs, [0, 1, 2], ["a", "b", "c"], at_a_time=2)
    narrator.started(0)
    narrator.started(1)
    narrator.ended(0, "done", 60.0)
    assert "(1 of 3, about 1 min 0 s left)" in capsys.readouterr().out  # b and then c, or side by side
    narrator.started(2)
    narrator.running = dict.fromkeys(narrator.running, 0.0)  # since long ago
    narrator.ended(1, "done", 60.0)
    assert "(2 of 3, 1 still running)" in capsys.readouterr().out


def test_times_are_told_in_the_units_that_matter() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 125, 7260)] == ["0 s", "1 min 0 s", "2 min 5 s", "2 h 1 min"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_every_job_and_what_it_started(folder: Path, number: int, code: int) -> None:
    line = [
        sys.executable,
        "pkg/app.py",
        "-m",
        "hydra/launcher=local",
        "hydra.launcher.jobs=2",
        "sleeper=true",
        "number=0,1,2",
    ]
    parent = subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 30
    while len(files := list((folder / "ran").glob("*.pids"))) < 2 or not all(f.read_text() for f in files):
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.send_signal(number)
    said = parent.communicate(timeout=30)[0]
    assert parent.returncode == code, said
    assert "all jobs were ended; 0 of 3 had finished" in said
    assert not (folder / "ran" / "2.start").exists()
    assert not [pid for file in files for pid in file.read_text().split() if alive(int(pid))]


def alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
