"""Many runs that start at once on one cache folder: each thing is made once, whoever is killed."""

import hashlib
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import CONTEXT
from safetensors.torch import load_file

from diffexp.data.digits import Digits
from diffexp.errors import UserError
from diffexp.io.files import try_locked
from diffexp.metrics.cached import cache_file, cached
from diffexp.metrics.classifier import TrainedClassifier
from diffexp.metrics.reference import reference
from diffexp.metrics.samples import SampleMetric

MADE = "training the digits classifier", "classifier features of"


def prepare(cache: Path, log: Path, start: Any, min_steps: int) -> None:
    """What every run does before it trains; all that it says goes to `log`, then the sha256 of all that it got."""
    torch.set_num_threads(1)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    data = Digits().load()
    start.wait(60)
    recipe = TrainedClassifier(epochs=1, min_steps=min_steps)
    prepared: Any = SampleMetric(recipe, count=50, cache=str(cache)).prepare(data, torch.device("cpu"))
    moments, floor = prepared.reference.moments, prepared.floor
    got = [prepared.features(data.reference("heldout", 20)), moments.total, moments.outer, prepared.reference.features]
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in got))
    digest.update(f"{moments.count} {floor.frechet!r} {floor.kid!r}".encode())
    print(f"got {digest.hexdigest()}", flush=True)


def started(folder: Path, names: list[str], start: Any, steps: int) -> list[Any]:
    (folder / "log").mkdir(exist_ok=True)
    processes: list[ForkServerProcess] = []
    for name in names:
        arguments = (folder / "cache", folder / "log" / name, start, steps)
        processes.append(CONTEXT.Process(target=prepare, args=arguments, daemon=True))
        processes[-1].start()
    return processes


def said(folder: Path) -> list[str]:
    return [line for log in sorted((folder / "log").iterdir()) for line in log.read_text().splitlines()]


def end(processes: list[Any]) -> None:
    for process in processes:
        process.join(120)
    assert {process.exitcode for process in processes} == {0}


def test_sixteen_processes_that_start_at_once_make_each_thing_once_and_get_equal_bits(
    tmp_path: Path,
) -> None:
    together = CONTEXT.Barrier(16)
    end(started(tmp_path, [f"{i:02}" for i in range(16)], together, steps=20))
    lines = said(tmp_path)
    for made in MADE:
        assert len([line for line in lines if made in line]) == 1
    digests = [line for line in lines if line.startswith("got ")]
    assert len(digests) == 16
    assert len(set(digests)) == 1
    names = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len([name for name in names if name.endswith(".safetensors")]) == 3  # network, statistics, floor
    assert {name.rpartition(".")[2] for name in names} == {"safetensors", "lock"}, "no half-written file is left"


def test_when_the_builder_is_killed_the_next_in_line_builds_and_no_lock_stays(
    tmp_path: Path,
) -> None:
    go = CONTEXT.Event()
    go.set()
    (builder,) = started(tmp_path, ["builder"], go, steps=20)
    log = tmp_path / "log" / "builder"
    deadline = time.monotonic() + 60
    while not (log.exists() and MADE[0] in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(builder.pid, signal.SIGSTOP)  # in the middle of it, however fast the machine is
    others = started(tmp_path, [f"other{i}" for i in range(4)], go, steps=20)
    while "waiting for another process" not in "".join(said(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(builder.pid, signal.SIGKILL)
    end(others)
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    lines = said(tmp_path)
    assert len([line for line in lines if MADE[0] in line]) == 2, "the killed one's, and one more"
    assert len({line for line in lines if line.startswith("got ")}) == 1
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        with try_locked(file) as free:
            assert free


def test_what_a_killed_writer_left_beside_the_file_is_swept_up(tmp_path: Path) -> None:
    path = cache_file(tmp_path, "reference", "x", "0" * 64)
    path.parent.mkdir()
    other = path.with_name(".another.safetensors.abc.part")
    for left in (path.with_name(f".{path.name}.abc.part"), other):
        left.write_bytes(b"half")
    cached(path, "w", lambda: {"x": torch.zeros(2)})
    assert [left.name for left in path.parent.glob(".*.part")] == [other.name]


@pytest.mark.parametrize("name", ["../../../x", "/etc/x", "a/b\0c", "x" * 500, "..", "\x1b[31m"])
def test_a_cache_file_lies_in_the_cache_whatever_the_data_is_called(tmp_path: Path, name: str) -> None:
    path = cache_file(tmp_path, "reference", name, "0" * 64)
    assert path.resolve().parent == tmp_path / "reference"
    assert cached(path, "w", lambda: {"x": torch.zeros(2)}).keys() == {"x"}


def test_a_cache_that_cannot_be_written_is_told_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be made .* cache=FOLDER, or DIFFEXP_CACHE"):
        cached(tmp_path / "file" / "x.safetensors", "w", dict)


def test_statistics_of_other_features_are_refused_even_under_the_right_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fingerprint is in the file, not only in its name."""
    data, where = Digits().load(), torch.device("cpu")
    ours, theirs = (TrainedClassifier(epochs=1, min_steps=n).build(data, tmp_path / "n", where) for n in (12, 13))
    first = reference(ours, data, tmp_path / "ours")
    reference(theirs, data, tmp_path / "theirs")
    (mine,), (other,) = ((tmp_path / name / "reference").glob("*.safetensors") for name in ("ours", "theirs"))
    mine.write_bytes(other.read_bytes())
    capsys.readouterr()
    again = reference(ours, data, tmp_path / "ours")
    assert "is ignored: it was made for other data, features or code" in capsys.readouterr().out
    assert torch.equal(again.moments.outer, first.moments.outer)
    assert not torch.equal(load_file(mine)["outer"], load_file(other)["outer"])
