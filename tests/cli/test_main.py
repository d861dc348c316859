"""What `diffexp COMMAND ...` makes of a command line: runs it, explains it, or says what is wrong with it."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from small_conf import CONF, write

import diffexp
from diffexp.cli.config import compose_choice
from diffexp.cli.errors import user_message
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.cli.instantiate import built
from diffexp.cli.main import COMMANDS, main
from hydra_plugins.diffexp_local_launcher._sweep_log import duration


class App:
    """A task that keeps what it was called with, run on small configurations."""

    def __init__(self, conf: Path) -> None:
        self.conf = conf
        self.checked: list[DictConfig] = []
        self.ran: list[DictConfig] = []

    def check(self, cfg: DictConfig) -> None:
        assert not self.ran
        self.checked.append(cfg)

    def task(self, cfg: DictConfig) -> None:
        self.ran.append(cfg)

    def __call__(self, *argv: str) -> int:
        return run_hydra_app(self.task, "train", ["--config-path", str(self.conf), *argv], self.check)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return App(write(tmp_path / "conf", CONF))


def refused(app: App, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said about a command line that must be refused before anything runs."""
    assert app(*argv) == 2
    said = capsys.readouterr().err
    assert not app.ran
    assert "Traceback" not in said
    assert said.startswith("diffexp train: error: ")
    return said.removeprefix("diffexp train: error: ").strip()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--help", "usage: diffexp COMMAND"),
        ("--version", "diffexp "),
        ("train --help hydra/help=train", "\ndata: "),
        ("check --help", "\nschedule: "),
        ("sample --help", "\nsampler: "),
        ("evaluate --help", "\nmetric: "),
        ("explain --help", "\ntarget: "),
    ],
)
def test_help_says_what_there_is_and_loads_nothing_heavy(command: str, said: str) -> None:
    heavy = ["torch", "pytorch_lightning", "wandb", "diffusers", "torchmetrics", "sklearn", "scipy", "plotly"]
    program = (
        "import sys; from diffexp.cli.main import main; code = main(sys.argv[1:]);"
        f"sys.exit(f'loads {{loaded}}' if (loaded := [m for m in {heavy} if m in sys.modules]) else code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {command}" in said for command in COMMANDS)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffexp {diffexp.__version__}\n"


def test_an_unknown_command_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "seed=1"]) == 2
    assert "there is no command trian. Did you mean train?" in capsys.readouterr().err


def test_an_override_without_a_command_is_told_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=quick"]) == 2
    assert "diffexp train experiment=quick" in capsys.readouterr().err


def test_one_job_runs_with_its_overrides(app: App) -> None:
    assert app("target=score", "trainer.max_steps=3") == 0
    assert [(cfg.target.std, cfg.trainer.max_steps) for cfg in app.ran] == [(2, 3)]
    assert app.checked == app.ran


def test_flags_may_stand_anywhere(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert app("target=score", "--cfg", "job", "--resolve", "seed=7", "--package", "target") == 0
    assert capsys.readouterr().out == "# @package target\nstd: 2\nsteps: 1000\n"
    assert not app.ran


@pytest.mark.parametrize("line", [["-m", "target=epsilon,score", "seed=0,1"], ["experiment=quick"]])
def test_every_job_of_a_sweep_is_checked_before_the_first_one_runs(app: App, line: list[str]) -> None:
    """The same jobs as Hydra then runs: `App.check` refuses to be called after a run."""
    assert app(*line) == 0
    assert [(cfg.target.std, cfg.seed) for cfg in app.ran] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert app.checked == app.ran


def test_the_check_sees_what_hydra_knows_of_the_job(app: App) -> None:
    seen: list[tuple[str, int]] = []

    def check(cfg: DictConfig) -> None:
        seen.append((HydraConfig.get().runtime.choices.target, HydraConfig.get().job.num))

    app.check = check
    assert app("experiment=quick") == 0
    assert seen == [("epsilon", 0), ("epsilon", 1), ("score", 2), ("score", 3)]


def test_an_unknown_choice_is_told_with_the_nearest_and_all(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(app, capsys, "target=epsilo") == (
        "target=epsilo: there is no epsilo in target. Did you mean epsilon? Choices: epsilon, score."
    )


def test_an_unknown_choice_inside_a_file_is_told_too(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(app, capsys, "experiment=broken")
    assert said.startswith("target: scoer, in a configuration file: there is no scoer in target. Did you mean score?")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("trainer.max_step=3", "trainer.max_steps"),
        ("max_steps=3", "trainer.max_steps"),
        ("targt=score", "target"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(
    app: App, capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    key = typed.partition("=")[0]
    assert refused(app, capsys, typed) == f"{typed}: there is no key {key}. Did you mean {meant}?"


def test_adding_a_key_is_advised_only_where_a_class_takes_it(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    made = "+target._target_=fractions.Fraction"
    said = refused(app, capsys, made, "target.denominator=2")
    assert said.endswith("To pass a further argument to fractions.Fraction, type +target.denominator=2")
    said = refused(app, capsys, made, "target.denominatr=2")
    assert said.endswith("Did you mean +target.denominator?")
    said = refused(app, capsys, made, "target.foo=2")
    assert said.endswith("there is no key target.foo. Keys of target: std.")
    assert "+" not in refused(app, capsys, "foo=1")


def test_an_empty_choice_is_told_what_there_is(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(app, capsys, "target=") == "target=: nothing follows the = sign. Choices: epsilon, score."


def test_a_value_that_hydra_cannot_read_is_told_with_what_would_do(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(app, capsys, "seed=a b(c").startswith("seed=a b(c: Hydra cannot read this")
    assert refused(app, capsys, "quick").startswith("quick: an override is written key=value")


def test_a_sweep_without_its_flag_is_told(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(app, capsys, "seed=0,1").startswith("seed=0,1: several values make a sweep: add -m ")


def test_a_mandatory_value_is_asked_for(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(app, capsys, "given=???") == "given=...: must be given, for it has no default."


def test_equal_mistakes_of_a_sweep_are_told_once(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(app, capsys, "-m", "target=epsilon,scor,x", "seed=0,1").splitlines()
    assert [line for line in said if line.startswith("  (")] == [
        "  (2 of 6 jobs, first: target=scor seed=0)",
        "  (2 of 6 jobs, first: target=x seed=0)",
    ]
    assert len(said) == 4
    assert not app.checked


def test_what_the_check_refuses_is_told_before_anything_runs(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.check = lambda cfg: compose_choice("target", f"of_{cfg.target.std}", cfg)
    said = refused(app, capsys, "experiment=quick")
    assert "there is no of_1 in target" in said
    assert "(2 of 4 jobs, first: target=score seed=0)" in said


def test_a_reader_that_leaves_early_costs_no_traceback(tmp_path: Path) -> None:
    """`diffexp status STUDY --json | head -1`"""
    command = [sys.executable, "-m", "diffexp", "completion", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stderr
        writer.stdout.close()
        assert writer.stderr.read() == b""
    assert writer.returncode == 141


def test_a_folder_that_does_not_exist_is_told(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config-dir /nowhere: there is no such folder" in refused(app, capsys, "--config-dir", "/nowhere")


def test_a_mistake_found_while_the_task_runs_has_no_traceback(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.task = lambda cfg: compose_choice("target", "scoer", cfg)
    assert app() == 2
    said = capsys.readouterr().err
    told = "target=scoer: there is no scoer in target. Did you mean score? Choices: epsilon, score."
    assert said == f"diffexp train: error: {told}\n"


def test_a_wrong_argument_in_the_configuration_is_a_mistake(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.check = lambda cfg: built(cfg.target, object, "target")
    said = refused(app, capsys, "+target._target_=fractions.Fraction")
    assert said.startswith("target: ")
    assert "unexpected keyword argument 'std'" in said


def test_a_value_that_a_class_refuses_is_told_by_the_key_that_was_typed(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """By this package's class in words of its own, which name neither the group nor the key."""
    app.check = lambda cfg: built(cfg.target, object, "target")
    sampler = ["target=score", "~target.std", "+target._target_=diffexp.samplers.Ddim"]
    said = refused(app, capsys, *sampler, "target.steps=0")
    assert said.startswith("target.steps=0: ")
    assert "steps >= 1" in said


def test_a_deferred_call_that_is_refused_says_how_it_is_made(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.check = lambda cfg: built(cfg.network, object, "network", image_shape=(1, 8, 8))
    said = refused(app, capsys, "+network._target_=fractions.Fraction")
    assert "'image_shape'" in said
    assert "network(image_shape=, schedule=, data_std=, **its own settings)" in said
    assert "forward(x_t, t)" in said


def test_a_module_that_is_not_found_is_told_with_where_to_say_it(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.check = lambda cfg: built(cfg.target, object, "target")
    said = refused(app, capsys, "+target._target_=mine_alone.Target")
    assert said.startswith("target._target_=mine_alone.Target: there is no module mine_alone.")
    assert "PYTHONPATH=" in said


def test_cheap_checks_of_all_jobs_come_before_the_first_expensive_one(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int]] = []

    def run(*argv: str) -> int:
        cheap, expensive = (lambda cfg, name=name: seen.append((name, cfg.seed)) for name in ("cheap", "expensive"))
        return run_hydra_app(app.task, "train", ["--config-path", str(app.conf), *argv], cheap, app.check, expensive)

    assert run("-m", "seed=0,1") == 0
    assert seen == [("cheap", 0), ("cheap", 1), ("expensive", 0), ("expensive", 1)]
    seen.clear()
    app.ran.clear()
    app.check = lambda cfg: compose_choice("target", f"of_{cfg.seed}", cfg)
    assert run("-m", "seed=0,1") == 2
    assert {name for name, _ in seen} == {"cheap"}
    assert "there is no of_1 in target" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "word"), [(KeyboardInterrupt(), 130, "interrupted"), (SystemExit(143), 143, "terminated")]
)
def test_an_interrupted_sweep_stops_with_one_line(
    app: App, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    raised: BaseException, code: int, word: str,
) -> None:  # fmt: skip
    def task(cfg: DictConfig) -> None:
        app.ran.append(cfg)
        raise raised

    app.task = task
    monkeypatch.setattr("diffexp.cli.train.main", lambda argv: app(*argv))
    assert main(["train", "-m", "seed=0,1,2"]) == code
    assert [cfg.seed for cfg in app.ran] == [0]
    assert capsys.readouterr().err == f"diffexp train: {word}\n"


def test_sigterm_ends_a_command_through_its_finally_blocks(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from diffexp.cli import main, train\n"
        "def stopped(argv):\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "    finally: print('tidied', flush=True)\n"
        "train.main = stopped; sys.exit(main.main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "tidied\n", "diffexp train: terminated\n")


def test_a_sweep_typed_again_starts_no_process_for_what_is_finished(tmp_path: Path) -> None:
    line = [
        "train", "-m", f"root={tmp_path}", "study=s", "seed=0,1", "trainer.max_steps=1", "training.batch_size=4",
        "training.warmup_steps=1", "validation.count=8", "sampling.grid=1", "sampler.steps=1", "metric=none",
        "logger=none", "network.widths=[8]", "network.attention=[false]", "network.groups=4",
    ]  # fmt: skip
    torch.set_default_dtype(torch.float32)
    assert main(line) == 0
    again = [sys.executable, "-m", "diffexp", *line, "hydra/launcher=local"]
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped: ") == 2
    assert done.stdout.count("nothing to do") == 2
    assert "started" not in done.stdout


def test_a_bug_keeps_its_traceback(app: App) -> None:
    app.task = lambda cfg: int("not ours to explain")
    with pytest.raises(ValueError, match="not ours to explain"):
        app()


def test_a_value_error_of_what_our_code_calls_is_a_bug() -> None:
    """Only a `raise` of our own speaks to a person; here `round` raises inside our function."""
    with pytest.raises(ValueError, match="NaN") as caught:
        duration(math.nan)
    assert user_message(caught.value) is None


def test_full_errors_can_be_asked_for(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    app.check = lambda cfg: compose_choice("target", "scoer", cfg)
    with pytest.raises(ValueError, match="there is no scoer in target"):
        app()


def test_files_of_ones_own_are_found(app: App, tmp_path: Path) -> None:
    write(tmp_path / "mine", {"target/mine.yaml": "std: 9"})
    for line in (["--config-dir", "mine"], [f"hydra.searchpath=[file://{tmp_path}/mine]"]):
        app.ran.clear()
        assert app(*line, "target=mine") == 0
        assert [cfg.target.std for cfg in app.ran] == [9]


def test_a_failing_job_of_a_sweep_does_not_stop_the_others(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    def task(cfg: DictConfig) -> None:
        app.ran.append(cfg)
        if cfg.seed == 0:
            compose_choice("target", "scoer", cfg)

    app.task = task
    assert app("-m", "seed=0,1,2") == 2
    assert [cfg.seed for cfg in app.ran] == [0, 1, 2]
    assert "there is no scoer in target" in capsys.readouterr().err


def test_a_program_that_cannot_be_started_again_is_told(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Called from another program, as here, the local launcher cannot know how to run one job."""
    assert app("-m", "hydra/launcher=local", "seed=0,1") == 1
    said = capsys.readouterr().err
    assert "Use hydra/launcher=basic here" in said
    assert "Traceback" not in said


def test_a_launcher_without_slots_is_refused(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(app, capsys, "-m", "hydra/launcher=local", "hydra.launcher.jobs=0", "seed=0,1")
    assert said.startswith("hydra.launcher.jobs=0: at least one job must run at a time")
