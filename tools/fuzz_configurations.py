"""Random command lines of `diffexp train`, valid or not: each builds, or ends with one clear message.

What is tried is composing and checking, networks built and data loaded, as everything is before the first run of a
sweep. The tests try some, from one seed; for more:

    python tools/fuzz_configurations.py --examples 300 [--seed 1]
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

CONF = Path(__file__).parents[1] / "conf"
CHOICES = {
    group.name: sorted(file.stem for file in group.glob("*.yaml"))
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
}
CHOICES["experiment"] = ["quick"]  # the others are sweeps of up to 48 jobs
#: Every number, text and list of a usual configuration, and some that only one choice has.
KEYS = (  # noqa: SIM905
    "seed study objective.space objective.normalize fail_fast "
    "training.batch_size training.warmup_steps training.ema_decay training.log_every "
    "validation.every validation.count validation.batch_size validation.bound "
    "sampling.every sampling.grid sampling.clip sampling.t_start sampling.t_end checkpoint.every_n_steps "
    "compute.precision compute.channels_last compute.compile trainer.max_steps trainer.accelerator trainer.devices "
    "trainer.gradient_clip_val trainer.max_epochs times.t_min times.t_max times.mean times.std "
    "sampler.steps sampler.eta sampler.grid sampler.clip sampler.variance sampler.t_end schedule.steps schedule.s "
    "schedule.beta_first schedule.beta_last network.widths network.attention network.layers network.groups "
    "network.dropout network.conditioning optimizer.lr optimizer.betas optimizer.weight_decay metric.count "
    "metric.batch metric.features.classifier.dimension metric.features.classifier.epochs "
    "weighting.gamma weighting.k weighting.bias "
    "target.sigma_data data.path data.hub data.flip data.name logger.mode logger.tags logger.init_timeout "
    "target._target_ network._target_ optimizer._target_ sampler._partial_ schedule._convert_ target "
    "hydra.mode hydra.sweeper.params hydra.searchpath"
).split()
NUMBERS = "0 1 2 3 4 7 8 64 1000 1001 100000 1000000000000 -1 0.0 0.5 0.999 1.0 1.5 1e-12 1e300 -0.25 nan inf -inf"
VALUES = (
    *NUMBERS.split(),
    *("true", "false", "null", "auto", "native", "'1'", "1e", "0x10", "???", "", "''", "' '"),
    *("[]", "[8]", "[8,8]", "[16,32]", "[false]", "[false,false]", "[1,[2]]", "{}", "{a:1}", "[0.9,0.99]", "[null]"),
    *("${seed}", "${nothing.here}", "${oc.env:HOME}", "${oc.env:NOT_SET}", "${", "$(id)", "os.system", "json.loads"),
    *("a b", "a/b", "../..", "/", "\\", '"', "'", "a'b", "(", "a:b", "a=b", "a,b", "1,2", "range(1,3)", "glob(*)"),
    *(
        "choice(1,2)",
        "épsilon",
        "噪声",
        "\u202e",
        "\x1b[31mred",
        "\n",
        "\t",
        "x" * 300,
        "%s",
        "<b>",
        "[bold]",
        "~",
        "#",
    ),
    *("diffexp.targets.V", "diffexp.targets", "torch.optim.SGD", "cosine", "log_snr", "karras", "beta_tilde"),
)
WRITTEN = ("=", "=", "=", "=", "=", "=", "+=", "++=", "~", "=extend_list", "")


def misspelt(word: str, at: int) -> str:
    """The word without one letter."""
    at %= len(word)
    return word[:at] + word[at + 1 :]


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """One word of a command line."""
    kind = draw(st.sampled_from(["choice"] * 4 + ["value"] * 5 + ["misspelt", "sweep", "anything"]))
    if kind == "anything":
        return draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
    group = draw(st.sampled_from(sorted(CHOICES)))
    chosen = draw(st.sampled_from(CHOICES[group]))
    if kind == "choice":
        return f"{group}={chosen}"
    if kind == "sweep":
        return f"{group}={chosen},{draw(st.sampled_from(CHOICES[group]))}"
    key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))
    if kind == "misspelt":
        at = draw(st.integers(0, 30))
        return draw(st.sampled_from([f"{group}={misspelt(chosen, at)}", f"{misspelt(key, at)}={value}"]))
    written = draw(st.sampled_from(WRITTEN))
    match written:
        case "+=" | "++=":
            return f"{written[:-1]}{key}{draw(st.sampled_from(['', '', 'x', '.x']))}={value}"
        case "~":
            return f"~{key}"
        case "=extend_list":
            return f"{key}=extend_list({value})"
        case _:
            return f"{key}{written}{value}"


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """The arguments of `diffexp train`."""
    words = draw(st.lists(overrides(), min_size=1, max_size=4))
    return words + draw(st.sampled_from([[], [], [], ["-m"]]))


@dataclass(frozen=True)
class Outcome:
    """How a command line ended.

    Attributes:
        code: The exit code; None if it ended with a traceback, which is then in `stderr`.
        stderr: What it printed there.
        seconds: Of this process' time, so that other programs do not count.
        jobs: Of the sweep; 1 without one.
    """

    code: int | None
    stderr: str
    seconds: float
    jobs: int

    @property
    def wrong(self) -> str | None:
        """What is not as it should be."""
        lines = [line for line in self.stderr.splitlines() if not line.startswith("diffexp train: note: ")]
        if self.code is None or "Traceback" in self.stderr:
            return "a traceback"
        if self.code not in (0, 2):
            return f"exit code {self.code}"
        if self.code == 2 and (not lines or not re.match(r"(usage: )?diffexp train", lines[0])):
            return "no message"
        if self.code == 2 and len([line for line in lines if line.startswith("diffexp train: error:")]) != 1:
            return "not one message"
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", self.stderr.replace("\t", " ")):
            return "control characters"
        return "a message of 4000 characters" if len(self.stderr) > 4000 else None


def outcome(words: Sequence[str], root: Path) -> Outcome:
    """What `diffexp train` makes of the words before it trains."""
    from diffexp.cli import build, train
    from diffexp.cli.hydra_app import run_hydra_app

    line = [f"root={root}", f"cache={root}/cache", "metric=none", "logger=none", "hydra/launcher=basic", *words]
    jobs: list[object] = []

    def check(cfg: DictConfig) -> None:
        jobs.append(cfg)
        train.check(cfg)

    errors = io.StringIO()
    began = time.process_time()
    hub = mock.patch.dict(sys.modules, {"datasets": None})  # no network is used
    with hub, contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = run_hydra_app(lambda cfg: None, "train", line, check)
        except Exception:
            code = None
            traceback.print_exc()
    seconds = time.process_time() - began
    build.load_data.cache_clear()
    return Outcome(code, errors.getvalue(), seconds, max(len(jobs), 1))


def tried(examples: int, look: Callable[[list[str], Outcome], None], root: Path, number: int | None) -> None:
    """Shows `look` the outcome of many command lines; from `number`, or always the same ones if that is None."""

    def one(words: list[str]) -> None:
        look(words, outcome(words, root))

    test = given(command_lines())(one)
    if number is not None:
        test = seed(number)(test)
    phases = [Phase.generate, Phase.shrink] if number is None else [Phase.generate]
    settings(
        max_examples=examples, deadline=None, derandomize=number is None, database=None, phases=phases,
        suppress_health_check=list(HealthCheck),
    )(test)()  # fmt: skip


def main() -> int:
    """0 if every command line ended well and within 3 s of processor time (a sweep: 0.4 s more a job), else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wrong: list[str] = []
    seconds: list[float] = []
    codes: list[int | None] = []

    def look(words: list[str], found: Outcome) -> None:
        seconds.append(found.seconds)
        codes.append(found.code)
        slow = len(seconds) > 1 and found.seconds > 3 + 0.4 * (found.jobs - 1)  # jobs are composed one by one
        why = found.wrong or (f"{found.seconds:.1f} s for {found.jobs} job(s)" if slow else None)
        if why:
            wrong.append(f"diffexp train {shlex.join(words)}\n{why}:\n{found.stderr[-1500:]}")
            print(wrong[-1], "-" * 80, sep="\n", flush=True)

    os.environ.pop("HYDRA_FULL_ERROR", None)
    with tempfile.TemporaryDirectory() as root:
        look([], outcome([], Path(root)))  # imports
        tried(options.examples, look, Path(root), options.seed)
    print(
        f"{len(seconds) - 1} command lines: {codes.count(0) - 1} build, {codes.count(2)} end with one message, "
        f"{len(wrong)} end wrongly; the slowest took {max(seconds[1:]):.1f} s"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
