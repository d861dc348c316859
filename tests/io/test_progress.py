import itertools

import pytest

from diffexp.io import progress as subject
from diffexp.io.progress import clock, progress


def test_seconds_read_as_a_clock() -> None:
    assert [clock(s) for s in (0.0, 59.6, 61.0, 3725.0)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), 3, "work")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_long_work_says_what_is_left_at_the_pace_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count(0, 12)
    monkeypatch.setattr(subject.time, "monotonic", lambda: next(ticks))
    assert list(progress("abcd", 4, "work")) == list("abcd")
    assert capsys.readouterr().err.splitlines() == [
        "work   25 %  ETA 0:36",
        "work   50 %  ETA 0:24",
        "work   75 %  ETA 0:12",
        "work  100 %  ETA 0:00",
    ]
