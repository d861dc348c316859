import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffexp.metrics.cached import Tensors, cached, fingerprint

TENSORS = {"matrix": torch.linspace(0, 1, 6, dtype=torch.float64).reshape(2, 3), "count": torch.tensor(7)}


def built(path: Path, wanted: str = "a") -> list[str]:
    """Whether `cached` built anew, and that it gave the right tensors either way."""
    calls: list[str] = []

    def build() -> Tensors:
        calls.append("built")
        return TENSORS

    tensors = cached(path, wanted, build)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    return calls


def test_what_was_built_once_is_read_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    assert built(path) == ["built"]
    assert built(path) == []


def test_a_file_with_another_fingerprint_is_refused_and_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    built(path, "a")
    assert built(path, "b") == ["built"]
    assert "made for other data" in capsys.readouterr().out
    assert built(path, "b") == []


def test_a_truncated_file_is_refused_and_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    built(path)
    whole = path.read_bytes()
    for part in (whole[:-3], whole[:20], b""):
        path.write_bytes(part)
        assert built(path) == ["built"]
        assert "damaged" in capsys.readouterr().out
        assert built(path) == []


def test_a_changed_number_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    built(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert built(path) == ["built"]
    assert "damaged" in capsys.readouterr().out


def test_a_file_without_our_fingerprint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    assert built(path) == ["built"]


def test_a_build_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"

    def fail() -> Tensors:
        raise ValueError("no labels")

    with pytest.raises(ValueError, match="no labels"):
        cached(path, "a", fail)
    assert not path.exists()
    assert built(path) == ["built"]


def test_every_part_changes_a_fingerprint() -> None:
    parts = [("a", 1), ("a", 2), ("b", 1), ("a1",), ("a", "1"), (b"a", 1)]
    assert len({fingerprint(*p) for p in parts}) == len(parts)


def ask(path: Path, log: Path, barrier: Barrier) -> None:
    def build() -> Tensors:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.5)  # long enough for the other process to arrive
        return TENSORS

    barrier.wait()
    assert torch.equal(cached(path, "a", build)["matrix"], TENSORS["matrix"])


def test_two_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    path, log = tmp_path / "x.safetensors", tmp_path / "log"
    both = [context.Process(target=ask, args=(path, log, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "built\n"
    assert torch.equal(load_file(path)["matrix"], TENSORS["matrix"])
