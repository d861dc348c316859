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
from small_conf import write

from diffexp.cli import report, status
from diffexp.cli.main import COMMANDS, main

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


def test_settings_of_the_commands_that_take_up_a_run_are_completed(environment: dict[str, str]) -> None:
    sample, evaluate, sampler = completed(environment, "diffexp sample ", "diffexp evaluate ", "diffexp sample sampl")
    assert {"run=", "count=", "out=", "sampler=", "trainer."} <= set(sample)
    assert {"run=", "out=", "cache=", "sampler=", "metric=", "trainer."} <= set(evaluate)
    assert not {"target=", "experiment=", "logger=", "hydra."} & {*sample, *evaluate}
    assert set(sampler) == {"sampler.", "sampler=", "sampling."}


def test_targets_to_be_explained_are_completed_one_after_the_other(environment: dict[str, str]) -> None:
    keys, second = completed(environment, "diffexp explain ", "diffexp explain target=v,scal")
    assert {"target=", "data=", "out=", "nodes="} <= set(keys)
    assert not {"logger=", "sampler=", "experiment="} & set(keys)
    assert second == ["v,scaled_noise"]


def test_a_run_is_completed_as_a_path_and_then_its_own_settings(environment: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "s" / "v-native" / "seed=0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("sampler: {_target_: diffexp.samplers.Ddim, steps: 7}\nsampling: {clip: true}\n")
    up = f"diffexp sample run={tmp_path}"
    study, seed, setting, value = completed(
        environment, f"{up}/runs/", f"{up}/runs/s/v-native/se", f"{up}/runs/s/v-native/seed=0 sampler.st",
        f"{up}/runs/s/v-native/seed=0/ out=a.png sampler.steps=",
    )  # fmt: skip
    assert study == [f"{tmp_path}/runs/s/"]
    assert seed == [f"{tmp_path}/runs/s/v-native/seed=0/"]  # readline's last break is that of run=
    assert setting == ["sampler.steps="]
    assert value == ["7"]


def test_choices_of_ones_own_folder_are_completed(environment: dict[str, str], tmp_path: Path) -> None:
    """README: diffexp train -m --config-dir=myconf target=image_minus_noise,epsilon,v seed=0,1,2 study=mine"""
    write(tmp_path / "myconf", {"target/image_minus_noise.yaml": "_target_: mine.ImageMinusNoise"})
    found = completed(
        environment, f"diffexp train -m --config-dir={tmp_path}/myconf target=im",
        f"diffexp train --config-dir {tmp_path}/myconf seed=0,1 target=v,im",
    )  # fmt: skip
    assert found == [["image_minus_noise"], ["v,image_minus_noise"]]


def test_check_completes_targets_and_schedules(environment: dict[str, str]) -> None:
    every, target, schedule = completed(
        environment, "diffexp check ", "diffexp check target=scaled", "diffexp check target=mine.Own schedule=rec"
    )
    assert {"target=", "schedule=", "times=", "out=", "sampling."} <= set(every)
    assert not {"data=", "network=", "experiment=", "hydra."} & set(every)
    assert (target, schedule) == (["scaled_noise"], ["rectified"])


def test_loss_spaces_are_the_targets_and_native(environment: dict[str, str]) -> None:
    every, native, v = completed(
        environment, *(f"diffexp train objective.space={begun}" for begun in ("", "na", "sco"))
    )
    assert {"native", "epsilon", "x0", "v"} <= set(every)
    assert (native, v) == (["native"], ["score"])


def test_report_completes_studies_and_its_flags(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for study in ("runs/quick", "runs/mine", "other/third"):
        (tmp_path / study).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    studies, begun, root, flags, formats = completed(
        environment, "diffexp report ", "diffexp report qu", "diffexp report --root other ", "diffexp report --",
        "diffexp report quick --format h",
    )  # fmt: skip
    assert (sorted(studies), begun, root, formats) == (["mine", "quick"], ["quick"], ["third"], ["html"])
    with pytest.raises(SystemExit):
        report.main(["--help"])
    assert set(flags) == set(re.findall(r"--[a-z]+", capsys.readouterr().out.partition("options:")[2])) - {"--format "}


def test_status_completes_as_report_does_and_plan_as_train(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for study in ("runs/quick", "other/third"):
        (tmp_path / study).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    begun, root, flags, choice, flag = completed(
        environment, "diffexp status qu", "diffexp status --root other ", "diffexp status --",
        "diffexp plan -m seed=0,1 target=eps", "diffexp plan --j",
    )  # fmt: skip
    assert (begun, root, choice, flag) == (["quick"], ["third"], ["epsilon"], ["--json"])
    with pytest.raises(SystemExit):
        status.main(["--help"])
    lines = capsys.readouterr().out.partition("options:")[2].splitlines()
    assert set(flags) == {found[1] for line in lines if (found := re.match(r"  (?:-h, )?(--[a-z]+)", line))}


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
