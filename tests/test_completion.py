"""Completion in a real bash: what the Tab key makes of a line."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffexp.apps.main import COMMANDS, main

SCRIPT = """
eval "$(diffexp completion bash)"
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
for line in "$@"; do
    COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    _diffexp_completion diffexp
    echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "diffexp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m diffexp "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb"}


def completed(environment: dict[str, str], *lines: str) -> list[list[str]]:
    done = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT, "bash", *lines], env=environment, capture_output=True, text=True
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_commands_are_completed(environment: dict[str, str]) -> None:
    assert completed(environment, "diffexp ", "diffexp comp", "diffexp completion ") == [
        [*COMMANDS, "--help", "--version"],
        ["completion"],
        ["bash"],
    ]


def test_after_a_command_groups_choices_keys_and_flags_are_completed(environment: dict[str, str]) -> None:
    """Of what follows `=` only the rest is given, for that is what bash replaces."""
    group, key, choice, second, flag = completed(
        environment,
        "diffexp train targ",
        "diffexp train seed=1 trainer.max_st",
        "diffexp train -m seed=0,1 target=eps",
        "diffexp train -m target=v,scal",
        "diffexp train --multi",
    )
    assert "target=" in group
    assert key == ["trainer.max_steps="]
    assert choice == ["epsilon"]
    assert second == ["v,scaled_noise"]
    assert flag == ["--multirun"]


def test_the_tab_key_completes_a_choice(environment: dict[str, str]) -> None:
    """At a terminal, through readline, which has its own idea of where a word begins."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        os.write(terminal, b'eval "$(diffexp completion bash)"; PS1=ready\\>; echo\n')
        read_until(terminal, r"ready>")
        os.write(terminal, b"diffexp train target=epsil\t")
        read_until(terminal, r"diffexp train target=epsilon")
    finally:
        os.write(terminal, b"\x03exit\n")
        os.close(terminal)
        os.waitpid(child, 0)


def read_until(terminal: int, pattern: str, seconds: float = 20.0) -> str:
    said = ""
    end = time.monotonic() + seconds
    while not re.search(pattern, said.replace("\r", "").replace("\a", "")):
        assert select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0], f"not said: {said!r}"
        said += os.read(terminal, 4096).decode(errors="replace")
    return said


def test_another_shell_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "fish: there is a script for bash" in capsys.readouterr().err
