"""`diffexp status`: what it shows of runs that live, died, failed and are done, and that no file can upset it."""

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked, diffexp
from hydra.core.override_parser.overrides_parser import OverridesParser
from quick import QUICK
from synthetic import change_record, write_run, write_study
from torch import nn

from diffexp.cli.main import main
from diffexp.io.files import try_locked
from diffexp.io.jsonio import strict_json
from diffexp.runs.directory import RunDirectory
from diffexp.runs.run_state import RunState, repeating, run_state, study_states
from diffexp.runs.study import Run


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def status(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["status", *words]) == 0
    return capsys.readouterr().out


def states(study: Path) -> dict[str, RunState]:
    return {each.run: each for each in study_states(study)}


def read(directory: RunDirectory) -> RunState:
    run = Run.at(directory.path)
    assert run
    return run_state(run, time.time())


# A real study.


class Broken(nn.Module):
    """A network that cannot be trained."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("no answer from [red]this[/red] network")
        return x_t


def wait_for(what: Callable[[], bool], process: Forked, patience: float = 120.0) -> None:
    end = time.monotonic() + patience
    while not what():
        assert process.poll() is None, f"the run ended with {process.returncode}"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_real_runs_are_shown_as_they_live_die_fail_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, study = tmp_path, tmp_path / "s"
    words = ["train", f"root={root}", "study=s", *QUICK, "logger=none"]
    assert main([*words, "target=v"]) == 0
    with contextlib.suppress(RuntimeError):
        assert main([*words, f"network._target_={__name__}.Broken"]) == 1
    capsys.readouterr()
    long = [*words, "trainer.max_steps=100000", "checkpoint.every_n_steps=10"]
    path = lambda: next(iter(study.glob("epsilon-*/seed=0/checkpoints/last.ckpt")), None)  # noqa: E731

    def living() -> RunState:
        (found,) = (each for each in study_states(study) if each.state not in ("done", "failed"))
        return found

    with diffexp(*long) as process:
        wait_for(lambda: path() is not None, process)
        alive = living()
        assert (alive.state, alive.max_images, alive.device) == ("running", 1_600_000, "cpu")
        assert alive.images_seen is not None
        assert alive.images_seen >= 160
        assert alive.eta is not None
        assert alive.images_per_second
        # the time left is that of the images left, at some speed near the recorded one
        assert alive.eta > (1_600_000 - alive.images_seen) / alive.images_per_second * 0.2
        assert alive.progress == alive.images_seen / 1_600_000
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert living().state == "stopped"
    assert living().eta is None
    assert [run.state for run in study_states(study)] == ["failed", "stopped", "done"]
    assert main(["plan", *long[1:], "seed=0,1", "-m", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in planned["runs"]] == ["stopped", "not started"]
    assert planned["runs"][0]["progress"] == (living().images_seen or 0) // 160 * 160 / 1_600_000  # of its checkpoint

    with diffexp(*long) as process:  # the same command takes it up again
        wait_for(
            lambda: living().state == "running" and (living().images_seen or 0) > (alive.images_seen or 0), process
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert living().state == "interrupted"

    output = status(capsys, "s", "--root", str(root))
    failed = output[output.index("failed   ") :].splitlines()
    assert failed[1].strip() == "RuntimeError: no answer from [red]this[/red] network"
    assert failed[2].strip() == f"again: {shlex.join(['diffexp', *words, f'network._target_={__name__}.Broken'])}"
    assert re.search(r"^done +100 % .* cpu +v-native-", output, re.MULTILINE)
    done = next(run for run in study_states(study) if run.state == "done")
    recorded = json.loads((study / done.run / "run.json").read_text())
    assert done.metrics["val/belief_eps"] == recorded["final"]["val/belief_eps"]
    assert f"{recorded['final']['val/belief_eps']:.4g}" in output


# One run.


def test_the_time_left_is_that_of_the_last_images_of_this_start(tmp_path: Path) -> None:
    """100 images in 2 s since the run was taken up again, and 650 to go; the speed before it does not count."""
    directory = write_run(
        tmp_path, "s", "v", 0, lines=0, validations=0, status="running", images_seen=350, max_images=1000
    )
    clocks = [(100, 10.0), (200, 20.0), (250, 2.0), (350, 4.0)]
    lines = [
        {"images_seen": n, "train/loss": 0.5, "time/elapsed": s, "time/images_per_second": 70.0} for n, s in clocks
    ]
    directory.metrics_file.write_text("".join(f"{strict_json(line)}\n" for line in lines) + '{"images_seen": 400, "tr')
    with try_locked(directory.path):
        assert (read(directory).state, read(directory).eta, read(directory).images_per_second) == (
            "running",
            13.0,
            70.0,
        )
    assert (read(directory).state, read(directory).eta) == ("stopped", None)


def test_before_two_readings_the_speed_gives_the_time_left(tmp_path: Path) -> None:
    directory = write_run(
        tmp_path, "s", "v", 0, lines=0, validations=0, status="running", images_seen=300, max_images=1000
    )
    directory.append_metrics(
        {"images_seen": 300, "train/loss": 1.0, "time/elapsed": 9.0, "time/images_per_second": 50.0}
    )
    with try_locked(directory.path):
        assert read(directory).eta == 14.0


def test_a_run_of_another_machine_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    directory = write_run(tmp_path, "s", "v", 0, status="running", host="another")
    heart = directory.path / "heartbeat"
    assert read(directory).state == "stopped"
    heart.touch()
    assert read(directory).state == "running"
    os.utime(heart, (time.time() - 3600, time.time() - 3600))
    assert read(directory).state == "stopped"
    heart.touch()
    change_record(directory.record_file, host=os.uname().nodename)
    assert read(directory).state == "stopped"  # here, the lock says more


def test_silence_is_counted_from_the_last_sign_of_life(tmp_path: Path) -> None:
    directory = write_run(tmp_path, "s", "v", 0)
    (directory.path / "heartbeat").touch()
    now = time.time()
    for name, ago in (("heartbeat", 100), ("metrics.jsonl", 400), ("run.json", 700)):
        os.utime(directory.path / name, (now - ago, now - ago))
    run = Run.at(directory.path)
    assert run
    assert run_state(run, now).silent == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("diffexp train target=v seed=0", "diffexp train target=v seed=0"),
        ("diffexp train 'data.path=my data'", "diffexp train 'data.path=my data'"),
        ("diffexp train seed=0; rm -rf ~", "diffexp train 'seed=0;' rm -rf '~'"),
        ("diffexp train `id` $(id) > x", "diffexp train '`id`' '$(id)' '>' x"),
        ("rm -rf ~", None),
        ("diffexp train 'open", None),
        ("", None),
    ],
)
def test_a_command_is_shown_so_that_a_shell_reads_nothing_else_into_it(recorded: str, shown: str | None) -> None:
    assert repeating(recorded, Path("runs")) == shown


def test_a_command_finds_its_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "it's here" / "runs"
    monkeypatch.chdir(tmp_path)
    for typed in ("", " root=elsewhere"):
        shown = repeating(f"diffexp train{typed} seed=0", root)
        assert shown
        words = shlex.split(shown)
        assert words[:3] == ["diffexp", "train", "seed=0"]
        (named,) = OverridesParser.create().parse_overrides(words[3:])
        assert (named.key_or_group, named.value()) == ("root", str(root))
    root.parent.mkdir()
    monkeypatch.chdir(root.parent)
    assert repeating("diffexp train seed=0", root) == "diffexp train seed=0"
    assert repeating("diffexp train 'root=.'", root.parent) == "diffexp train root=."


# A study.


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for seed in range(3):
        write_run(tmp_path, "s", "v", seed, images=False)
    write_run(tmp_path, "s", "x0", 0, images=False, status="failed", progress=0.25, error="CUDA out of memory")
    write_run(tmp_path, "s", "x0", 1, images=False, status="interrupted", progress=0.5)
    write_run(tmp_path, "s", "score", 0, images=False, status="diverged", progress=0.75)
    (tmp_path / "s" / "new" / "seed=0").mkdir(parents=True)
    return tmp_path / "s"


def test_what_asks_for_attention_comes_first(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = status(capsys, str(mixed)).splitlines()
    assert output[0].startswith(
        "s: 7 runs: 1 failed, 1 interrupted, 1 starting, 1 diverged, 3 done; 75 % of their images"
    )
    first = [line.split()[0] for line in output[3:] if not line.startswith("    ")]
    assert first == ["failed", "interrupted", "starting", "diverged", "done", "done", "done"]
    assert output[4] == "    CUDA out of memory"
    repeated = "study=s target=x0 objective.space=native optimizer.lr=0.0002 seed=0"
    assert output[5] == f"    again: diffexp train {repeated} root={mixed.parent}"


def test_json_says_what_the_table_says(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, record = status(capsys, str(mixed)), json.loads(status(capsys, str(mixed), "--json"))
    assert record["states"] == {"failed": 1, "interrupted": 1, "starting": 1, "diverged": 1, "done": 3}
    assert record["progress"] == (0.25 + 0.5 + 0.75 + 3) / 6  # nothing is known of the one that is starting
    assert len(record["runs"]) == 7
    for run in record["runs"]:
        (line,) = (line for line in table.splitlines() if line.endswith(run["run"]))
        cells = line.split()
        assert cells[0] == run["state"]
        if run["state"] != "starting":
            assert cells[1] == f"{100 * run['progress']:.0f}"
            numbers = [run["metrics"][key] for key in ("train/loss", "val/belief_eps") if key in run["metrics"]]
            assert cells[3 : 3 + len(numbers)] == [f"{value:.4g}" for value in numbers]
            assert "cpu (2 threads)" in line


def test_beyond_some_runs_the_done_ones_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path, targets=("v",), seeds=range(50), lines=2, validations=1, images=False)
    change_record(next(study.glob("*/seed=7/run.json")), status="failed", error="why")
    output = status(capsys, str(study))
    assert output.count("seed=") - output.count("again:") == 1
    assert "and 49 done (--all lists them)" in output
    assert "seed=49" in status(capsys, str(study), "--all")
    assert len(json.loads(status(capsys, str(study), "--json"))["runs"]) == 50


def test_no_file_can_upset_it_or_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steer = "\x1b]0;title\x07\x1b[2J[bold red]x[/]\u202e\x9b"
    hostile: list[dict[str, Any]] = [
        {"status": "failed", "error": f"{steer}\nsecond", "command": f"diffexp train {steer}", "device": steer},
        {"status": steer}, {"status": 3, "images_seen": "many", "max_images": [1]}, {"images_seen": 10**400},
        {"status": "running", "images_seen": -5, "max_images": -7, "host": {}}, {"max_images": 0, "final": [1]},
        {"status": "failed", "error": ["a"], "command": {"b": 1}}, {"final": {"val/belief_eps": "x", steer: 1.0}},
    ]  # fmt: skip
    for seed, changes in enumerate(hostile):
        change_record(write_run(tmp_path, "s", "v", seed, images=False).record_file, **changes)
    group = next((tmp_path / "s").iterdir())
    for seed, text in enumerate([b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000], start=20):
        (group / f"seed={seed}").mkdir()
        (group / f"seed={seed}" / "run.json").write_bytes(text)
    for seed, text in enumerate([
        b"{\n", b"\0" * 200_000, b'{"images_seen": 1, "train/loss": [], "time/elapsed": {}}\n',
        b'{"images_seen": 1e999, "train/loss": NaN}\n' * 9, b'{"train/loss": 1}\n',
    ], start=40):  # fmt: skip
        directory = write_run(tmp_path, "s", "v", seed, images=False, status="running")
        directory.metrics_file.write_bytes(text)
    os.mkfifo(group / "seed=40.lock")  # who opens it waits for ever
    (group / "seed=41" / "metrics.jsonl").unlink()
    (group / "seed=41" / "metrics.jsonl").mkdir()
    (group / "seed=42" / "run.json").unlink()
    os.mkfifo(group / "seed=42" / "run.json")
    (group / "seed=43" / "heartbeat").symlink_to("/dev/zero")
    (group / "seed=44" / "metrics.jsonl").unlink()
    (group / "seed=44" / "metrics.jsonl").symlink_to("/etc/passwd")
    (tmp_path / "s" / steer.replace("/", "") / "seed=0").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(tmp_path / "s") + b"/\xff\xfe")).joinpath("seed=0").mkdir(parents=True)
    for flag in ([], ["--all"], ["--json"]):
        output = status(capsys, str(tmp_path / "s"), *flag)
        assert "seed=40" in output
        if not flag or flag == ["--all"]:
            assert all(character.isprintable() or character == "\n" for character in output)
            assert "[bold red]x[/]" in output
        else:
            assert len(json.loads(output)["runs"]) == 8 + 5 + 5 + 2


def test_a_study_that_is_not_there_is_named_with_those_that_are(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "t", "--root", str(mixed.parent)]) == 2
    assert f"there is no study t: neither a folder of that name nor {mixed.parent}/t" in capsys.readouterr().err
    assert main(["status", str(mixed), "--interval", "0"]) == 2
    assert "take 0.1 to 86400 seconds" in capsys.readouterr().err


# Watching.


def test_a_watch_that_no_terminal_sees_prints_a_line_at_a_time_and_ends_with_ctrl_c(mixed: Path) -> None:
    words = [sys.executable, "-m", "diffexp", "status", str(mixed), "--watch", "--interval", "0.1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        change_record(next(mixed.glob("x0-*/seed=0/run.json")), status="done")
        while "1 failed" in (last := process.stdout.readline()):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert all(re.match(r"\d\d:\d\d:\d\d  s: 7 runs: 1 failed, 1 interrupted", line) for line in lines)
    assert "s: 7 runs: 1 interrupted, 1 starting, 1 diverged, 4 done" in last
    assert (process.returncode, err) == (0, "")


def test_a_watch_in_a_terminal_is_redrawn_and_leaves_the_table_and_the_cursor(mixed: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "diffexp", "status", str(mixed), "--watch", "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "12"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"s: 7 runs") < 3:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # its end
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    text = seen.decode()
    assert "Traceback" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    last = text[text.rindex("s: 7 runs") :]
    assert last.count("seed=") == 7 + 1  # the whole table stays, though the screen has room for a part of it


def test_no_torch_is_loaded_for_it(mixed: Path) -> None:
    code = (
        "import sys; from diffexp.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit('loads torch' if 'torch' in sys.modules or 'hydra' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "status", str(mixed)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 runs" in done.stdout


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    study = write_study(tmp_path, targets=("v",), seeds=range(60), lines=1, validations=0, images=False)
    for flag in ("--all", "--json"):
        words = f"{sys.executable} -m diffexp status {study} {flag} | head -n 1"
        done = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
        assert done.stderr == ""
