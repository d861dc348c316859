"""`hydra/launcher=local` on small real Hydra applications that know nothing of diffexp."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from threading import Thread

import pytest
from small_app import alive, environment, launched, launching, seen, sleepers, small_app, wait_until

from hydra_plugins.diffexp_local_launcher._processes import Job, StoppedError, run_all
from hydra_plugins.diffexp_local_launcher._slots import Slot
from hydra_plugins.diffexp_local_launcher._sweep_log import SweepLog, duration, last_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_app(tmp_path)


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
    assert done.stderr.startswith(
        "2 of 3 jobs failed. "
    )  # not what Hydra would put before it: all of a job's overrides
    assert "0.log, 2.log" in done.stderr


def test_with_fail_fast_the_first_failure_ends_those_that_run_and_no_more_are_started(folder: Path) -> None:
    """The second job sleeps for a minute; the first fails once the second has started."""
    began = time.monotonic()
    choice = ("number=0,1,2", "broken=[0]", "sleepers=[1]", "wait_for=1")
    done = launched(folder, "hydra.launcher.jobs=2", "hydra.launcher.fail_fast=true", *choice)
    assert time.monotonic() - began < 50
    assert done.returncode == 1
    first, stopping, second = re.findall(r"^(?:#\d [^s]|fail_fast|#\d stopped).*$", done.stdout, re.M)
    assert re.fullmatch(r"#0 FAILED \(exit code 1\) in \d+ s: number=0 \(1 of 3, 1 still running\)", first)
    assert stopping.startswith("fail_fast: the jobs that run are being stopped, and have 30 s to save their work")
    assert re.fullmatch(r"#1 stopped \(since #0 failed\) in \d+ s: number=1 \(2 of 3\)", second)
    assert "1 of 3 jobs failed, 1 stopped, 1 not started. " in done.stderr
    assert done.stderr.splitlines()[0].endswith("/logs: 0.log")
    assert not (folder / "ran" / "2.start").exists()
    pids = [pid for file in (folder / "ran").glob("1.pids") for pid in file.read_text().split()]
    assert not [pid for pid in pids if alive(int(pid))]


def test_with_fail_fast_a_line_says_that_no_more_are_started_if_none_runs(folder: Path) -> None:
    done = launched(folder, "hydra.launcher.jobs=1", "hydra.launcher.fail_fast=true", "number=0,1", "broken=[0]")
    assert done.stdout.endswith(
        "number=0 (1 of 2)\n    RuntimeError: number 0 is broken\nfail_fast: no more jobs are started\n"
    )
    assert "1 of 2 jobs failed, 1 not started. " in done.stderr


def test_a_job_is_named_by_the_overrides_that_distinguish_it(folder: Path) -> None:
    """By all of its overrides, where it is the only one or has none of its own."""
    done = launched(folder, "text=a", "number=1,2", "hold=0", "say=x,y", "hydra.launcher.jobs=1")
    assert re.findall(r"^#\d started on cpu \d+(.*)$", done.stdout, re.M) == [
        ": number=1 say=x", ": number=1 say=y", ": number=2 say=x", ": number=2 say=y"
    ]  # fmt: skip
    log = (folder / "out" / "a" / "logs" / "0.log").read_text()
    assert " text=a number=1 hold=0 say=x " in log.splitlines()[0]  # what repeats it is whole
    for own, name in ((("text=b", "number=1"), ": text=b number=1"), ((), "")):
        done = launched(folder, *own)
        assert re.findall(r"^#0 (?:started on cpu \d+|done in \d s)(.*)$", done.stdout, re.M) == [
            name,
            f"{name} (1 of 1)",
        ]


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
    own = environment(folder) | {"OMP_NUM_THREADS": before["OMP_NUM_THREADS"]}
    subprocess.run(shlex.split(log[0].removeprefix("$ ")), cwd=folder, env=own, check=True)
    assert [{**job, "span": 0} for job in seen(folder)] == [{**before, "span": 0}]


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


def test_no_end_is_estimated_while_a_job_outlasts_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of those that ended says nothing about a job that has run for longer."""
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    for log in logs:
        log.touch()
    log = SweepLog(logs, [0, 1, 2], ["a", "b", "c"], at_a_time=2)
    log.started(0)
    log.started(1)
    log.ended(0, "done", 60.0)
    assert "(1 of 3, about 1 min 0 s left)" in capsys.readouterr().out  # b and then c, or side by side
    log.started(2)
    log.running = dict.fromkeys(log.running, 0.0)  # since long ago
    log.ended(1, "done", 60.0)
    assert "(2 of 3, 1 still running)" in capsys.readouterr().out
    assert log.left() == ""


def test_jobs_that_failed_at_once_do_not_count_in_the_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SweepLog([tmp_path / "none"] * 4, list(range(4)), list("abcd"), at_a_time=1)
    for index, (state, seconds) in enumerate(
        [("FAILED (exit code 1)", 0.1), ("done", 60.0), ("KILLED (signal 9)", 1.0)]
    ):
        log.started(index)
        log.ended(index, state, seconds)
    ends = re.findall(r"\((\d of 4.*)\)$", capsys.readouterr().out, re.M)
    assert ends == ["1 of 4", "2 of 4, about 2 min 0 s left", "3 of 4, about 1 min 0 s left"]


def test_lines_of_an_earlier_sweep_are_not_the_jobs_own(tmp_path: Path) -> None:
    """The log is one file, to which a repeated sweep appends."""
    log = tmp_path / "0.log"
    log.write_text("$ python app.py\nRuntimeError: no\n$ python app.py\n")
    assert last_lines(log) == []
    log.write_text(log.read_text() + "it goes on\n")
    assert last_lines(log) == ["it goes on"]


def test_durations_are_printed_in_their_two_largest_units() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 125, 7260)] == ["0 s", "1 min 0 s", "2 min 5 s", "2 h 1 min"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_every_job_and_what_it_started(folder: Path, number: int, code: int) -> None:
    parent = launching(folder, "hydra.launcher.jobs=2", "sleeper=true", "number=0,1,2")
    pids = sleepers(folder, jobs=2)
    parent.send_signal(number)
    output = parent.communicate(timeout=30)[0]
    assert parent.returncode == code, output
    assert "all jobs were ended; 0 of 3 had finished" in output
    ends = re.findall(r"^#(\d) (\w+) \((.*)\) in \d+ s: number=(\d) ", output, re.M)
    assert sorted(ends) == [(job, "stopped", f"by {signal.Signals(number).name}", job) for job in "01"]
    assert not (folder / "ran" / "2.start").exists()
    assert not [pid for pid in pids if alive(pid)]


def test_a_job_that_received_sigterm_from_elsewhere_was_interrupted(folder: Path) -> None:
    """It left with the exit code of a program that was."""
    sweep = launching(folder, "number=0,1", "sleepers=[0]", "polite=true", "hydra.launcher.jobs=1")
    os.kill(sleepers(folder, jobs=1)[0], signal.SIGTERM)
    output = sweep.communicate(timeout=60)[0]
    assert sweep.returncode == 1
    assert "#0 interrupted (exit code 143)" in output
    assert "#1 done" in output
    assert "0 of 2 jobs failed, 1 interrupted. " in output


class Stops:
    """Records the jobs that were stopped."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int]] = []

    def started(self, index: int, where: str) -> None: ...

    def exited(self, index: int, code: int, seconds: float, fatal: bool) -> None: ...

    def stopped(self, index: int, code: int, seconds: float) -> None:
        self.ends.append((index, code))

    def waiting(self, seconds: float) -> None: ...

    def stopping(self, why: str, grace: float) -> None: ...


def test_a_second_sigterm_does_not_take_the_time_to_save_away(tmp_path: Path) -> None:
    """`timeout` sends it to its child and then to its group, which the child is in."""
    script = "trap 'sleep 0.5; touch saved; exit 143' TERM; touch ready; while :; do sleep 0.05; done"
    job = Job(["sh", "-c", script], str(tmp_path), dict(os.environ), tmp_path / "0.log")

    def terminate_twice() -> None:
        wait_until((tmp_path / "ready").exists)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    stops, twice = Stops(), Thread(target=terminate_twice)
    twice.start()
    with pytest.raises(StoppedError, match="SIGTERM"):
        run_all([job], [Slot("a", {})], stops, at_a_time=1)
    twice.join()
    assert (tmp_path / "saved").exists()
    assert stops.ends == [(0, 143)]
