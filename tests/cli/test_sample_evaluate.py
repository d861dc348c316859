"""`diffexp sample` and `evaluate`: a run's own settings, overridden one by one, and what is said otherwise."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore

from diffexp.cli.main import main
from diffexp.runs.evaluations import read_evaluations
from diffexp.runs.study import read_study

TINY = (
    "trainer.max_steps=2",
    "training.batch_size=16",
    "training.warmup_steps=1",
    "validation.count=32",
    "sampling.grid=4",
    "sampler.steps=3",
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "network.groups=4",
    "logger=none",
    "metric=classifier",
    "metric.count=70",
)


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of one run with a metric and one, of another target, without."""
    root = tmp_path_factory.mktemp("trained")
    line = ["train", f"root={root}", "study=s", *TINY, f"cache={root}/cache", "sampling.clip=false"]
    assert main(line) == 0
    assert main([*(word for word in line if not word.startswith("metric")), "metric=none", "target=v"]) == 0
    return root / "s"


@pytest.fixture(scope="module")
def run(study: Path) -> Path:
    return run_with(study, "classifier")


def run_with(study: Path, metric: str) -> Path:
    (found,) = (run.path for run in read_study(study) if run.record["metric"] == metric)
    return found


def settings(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    capsys.readouterr()
    assert main([*line, "--cfg", "job", "--resolve"]) == 0
    return capsys.readouterr().out


def test_a_setting_of_the_runs_own_metric_can_be_overridden(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README: diffexp evaluate run=... metric.count=5000"""
    out = tmp_path / "again.json"
    line = ["evaluate", f"run={run}", f"out={out}", "metric.count=80", "sampler.steps=2", "likelihood.count=0"]
    assert main(line) == 0
    written = json.loads(out.read_text())
    assert written["settings"]["metric"]["count"] == {"classifier": 80}
    assert (written["sampler"], written["steps"], written["clip"], written["nfe"]) == ("ddim", 2, False, 2)
    sampler = written["settings"]["sampler"]
    assert (sampler["steps"], sampler["clip"]) == (2, False)
    assert "fd/classifier_80" in written["metrics"]


def test_another_sampler_takes_the_runs_sampling_settings(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README: diffexp sample run=... sampler=ancestral count=100 out=grid.png"""
    line = ["sample", f"run={run}", "sampler=ancestral", "sampler.steps=5", "count=4"]
    assert main([*line, f"out={tmp_path}/grid.png"]) == 0
    assert "5 network calls each" in capsys.readouterr().out
    assert (tmp_path / "grid.png").stat().st_size > 0
    assert "clip: false" in settings(capsys, *line).partition("\nsampler:")[2]
    assert "clip: true" in settings(capsys, *line, "sampling.clip=true").partition("\nsampler:")[2]
    assert "clip: true" in settings(capsys, "sample", f"run={run}", "sampling.clip=true").partition("\nsampler:")[2]


def test_fewer_steps_of_the_runs_own_sampler(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sample", f"run={run}", "count=4", f"out={tmp_path}/grid.png"]
    for words, calls in ((["sampler.steps=2"], 2), ([], 3)):
        assert main([*line, *words]) == 0
        assert f"{calls} network calls each" in capsys.readouterr().out


def test_the_best_weights_are_those_of_the_lowest_point_of_the_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate so high that training only harms."""
    unstable = [
        "trainer.max_steps=4",
        "validation.every=2",
        "optimizer.lr=0.5",
        "training.ema_decay=0.0",
        "metric=none",
    ]
    assert main(["train", f"root={tmp_path}", "study=s", *TINY[1:-2], *unstable]) == 0
    (run,) = read_study(tmp_path / "s")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    curve = {line["images_seen"] // 16: line["val/belief_eps"] for line in lines if "val/belief_eps" in line}
    best = min(curve, key=curve.__getitem__)
    assert best < max(curve) == 4
    for weights, step in (("best", best), ("last", 4)):
        words = [f"run={run.path}", f"weights={weights}"]
        assert main(["evaluate", *words, f"out={tmp_path}/e.json", "metric=none", "likelihood.count=0"]) == 0
        told = json.loads((tmp_path / "e.json").read_text())
        assert (told["weights"], told["step"]) == (weights, step)
        assert told["metrics"]["val/belief_eps"] == curve[step]
        capsys.readouterr()
        assert main(["sample", *words, f"out={tmp_path}/{weights}.png", "count=4"]) == 0
        assert f"after {step} steps" in capsys.readouterr().out
    assert main(["sample", f"run={run.path}", "weights=final"]) == 2
    assert "weights=final: must be last or best, for example last." in capsys.readouterr().err


def test_a_run_without_a_metric_is_given_one_with_a_cache_of_its_own(study: Path, tmp_path: Path) -> None:
    line = ["evaluate", f"run={run_with(study, 'none')}", f"out={tmp_path}/e.json", "likelihood.count=0"]
    assert main([*line, "metric=classifier", "metric.count=70", f"cache={tmp_path}/cache"]) == 0
    assert "kid/classifier_70" in json.loads((tmp_path / "e.json").read_text())["metrics"]
    assert any((tmp_path / "cache").rglob("*.*"))


def test_the_runs_own_metric_uses_the_cache_of_the_line(
    run: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = lambda *words: settings(capsys, "evaluate", f"run={run}", *words).partition("\nmetric:")[2]  # noqa: E731
    assert "cache: elsewhere" in metric("cache=elsewhere")
    assert f"cache: {study.parent}/cache" in metric()


def records(run: Path) -> dict[str, dict]:
    """By file name."""
    return {file.name: json.loads(file.read_text()) for file in sorted((run / "evaluations").glob("*.json"))}


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    """The study, to be measured in."""
    return Path(shutil.copytree(study, tmp_path / "copied"))


QUICK = ("likelihood.count=0", "metric=classifier", "metric.count=70")


def test_one_command_measures_every_run_of_a_study_with_several_samplers(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ("sampler=ddim,heun", "sampler.steps=2,3")
    assert main(["evaluate", f"study={copied}", *QUICK, f"cache={copied}/cache", *swept]) == 0
    table = capsys.readouterr().out.rpartition("fd/classifier_70")[2]
    for run in read_study(copied):
        found = read_evaluations(run)
        assert [(each.sampler, each.steps, each.nfe, each.step) for each in found] == [
            ("ddim", 2, 2, 2),
            ("ddim", 3, 3, 2),
            ("heun", 2, 3, 2),
            ("heun", 3, 5, 2),
        ]
        assert len({each.metrics["fd/classifier_70"] for each in found}) == 4
        assert len({each.metrics["val/belief_eps"] for each in found}) == 1
        assert table.count(f"{run.name}/seed=0") == 4
        for each in found:
            assert f"{each.metrics['fd/classifier_70']:.5g}" in table
    record = next(iter(records(run.path).values()))
    assert record["command"].startswith("diffexp evaluate run=")
    assert "torch" in record["versions"]
    assert record["settings"]["sampler"]["clip"] is False, "the run's own"


def test_a_question_asked_again_is_printed_from_its_record(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(copied, "classifier")
    line = ["evaluate", f"run={run}", *QUICK, f"cache={copied}/cache", "sampler.steps=2"]
    assert main(line) == 0
    (name,) = records(run)
    file = run / "evaluations" / name
    record = json.loads(file.read_text())
    record["metrics"]["fd/classifier_70"] = 12345.0
    file.write_text(json.dumps(record))
    capsys.readouterr()
    assert main([*line[:2], *QUICK, "+metric.batch=35", "sampler=ddim", "sampler.steps=2"]) == 0, (
        "the same in other words"
    )
    out = capsys.readouterr().out
    assert re.search(r"^fd/classifier_70 +12345$", out, re.M), out
    assert "measured before; again=true" in out
    assert main([*line, "again=true"]) == 0
    assert records(run)[name]["metrics"]["fd/classifier_70"] != 12345.0
    assert main([*line, "metric.count=71"]) == 0
    assert main([*line, "weights=best"]) == 0
    assert len(records(run)) == 3


def test_without_a_metric_the_sampler_is_no_part_of_the_question(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(copied, "none")
    for sampler in ("ddim", "heun"):
        assert main(["evaluate", f"run={run}", "likelihood.count=0", f"sampler={sampler}"]) == 0
    (record,) = records(run).values()
    assert (record["sampler"], record["steps"], record["nfe"]) == ("none", None, 0)
    assert "measured before" in capsys.readouterr().out


def test_patterns_and_lists_name_several_runs_with_their_own_settings(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run.path for run in read_study(copied))
    monkeypatch.chdir(copied)
    for words in (
        [f"run={first.relative_to(copied)},{second.relative_to(copied)}"],
        ["run=*/seed=0"],
        ["-m", f"run='{first}','{second}'"],
    ):
        assert main(["sample", *words, "count=4", "sampler.steps=1"]) == 0
        out = capsys.readouterr().out
        for run in (first, second):
            assert f"{run}/samples/drawn.png: 4 images" in out


SEVERAL = {
    "run=nothing*/seed=0": "run=nothing*/seed=0: no run matches this pattern",
    "study=nothing": "there is no study nothing",
    "study=STUDY run=x": "cannot be combined",
    "study=STUDY out=x.json": "out=x.json: every job of a sweep would write this file",
    "study=STUDY sampler=ddim,reverse_sde": "sampler=reverse_sde",
    "study=STUDY sampler=ancestral,ddim sampler.eta=0.5": "sampler.eta=0.5: there is no key sampler.eta",
    "study=STUDY again=maybe": "again=maybe: must be true or false",
    "study=STUDY metric=[classifier,nothing]": "there is no nothing in metric. Choices: classifier, inception, none",
    "study=STUDY metric=[classifier,none]": "metric=[classifier,none]: these cannot be combined",
    "study=STUDY metric=classifier metric.count=1": "metric.count=1: a covariance takes 2 samples or more",
}


@pytest.mark.parametrize("typed", SEVERAL)
def test_a_mistake_in_a_sweep_is_found_before_anything_is_measured(
    copied: Path, typed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (word.replace("STUDY", str(copied)) for word in typed.split())
    assert main(["evaluate", *words]) == 2
    assert SEVERAL[typed] in capfd.readouterr().err
    assert not list(copied.rglob("evaluations"))


def test_unfinished_runs_of_a_study_are_left_out_with_a_line(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (run.path for run in read_study(copied))
    record = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    assert main(["evaluate", f"study={copied}", "metric=none", "likelihood.count=0"]) == 0
    assert "1 of the 2 runs" in capsys.readouterr().err
    assert not (first / "evaluations").exists()
    assert len(records(second)) == 1


def test_a_metric_of_ones_own_is_measured_beside_another(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brightness.py").write_text(
        "from diffexp.metrics.samples import Metric\n\n"
        "class Brightness(Metric):\n"
        "    def prepare(self, data, device):\n"
        "        return lambda generate: {'brightness/20': generate(0, 20).mean().item()}\n"
    )
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf" / "metric" / "brightness.yaml").write_text(
        "_target_: diffexp.metrics.samples.SampleMetric\n_convert_: all\nalso:\n  brightness:\n"
        "    _target_: brightness.Brightness\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = run_with(copied, "classifier")
    line = ["evaluate", f"--config-dir={tmp_path}/conf", f"run={run}", f"cache={copied}/cache", "likelihood.count=0"]
    assert main([*line, "metric=[own,brightness]"]) == 0
    (record,) = records(run).values()
    assert {"fd/classifier_70", "brightness/20"} <= record["metrics"].keys()
    assert main([*line, "metric=brightness"]) == 0
    alone = [each for each in records(run).values() if "fd/classifier_70" not in each["metrics"]]
    assert [each["metrics"]["brightness/20"] for each in alone] == [record["metrics"]["brightness/20"]]


def test_a_run_trained_with_several_metrics_records_their_names(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf" / "metric" / "small.yaml").write_text(
        "_target_: diffexp.metrics.samples.SampleMetric\n_convert_: all\nfeatures:\n  small:\n"
        "    _target_: diffexp.metrics.classifier.TrainedClassifier\ncount:\n  small: 66\n"
    )
    words = [word for word in TINY if not word.startswith("metric")]
    line = [
        "train",
        f"--config-dir={tmp_path}/conf",
        f"root={tmp_path}",
        "study=s",
        *words,
        f"cache={study.parent}/cache",
    ]
    assert main([*line, "metric=[classifier,small]", "metric.count.classifier=70"]) == 0
    (run,) = read_study(tmp_path / "s")
    assert run.record["metric"] == "classifier,small"
    assert {"fd/classifier_70", "fd/classifier_66"} <= run.final.keys()


def test_a_finished_run_typed_with_another_sampler_says_how_to_measure_it(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", f"root={study.parent}", "study=s", *TINY, f"cache={study.parent}/cache", "sampling.clip=false"]
    capsys.readouterr()
    assert main(line) == 0
    assert "to measure" not in capsys.readouterr().out
    assert main([*line, "sampler=heun"]) == 0
    out = capsys.readouterr().out
    command = re.search(r"diffexp (evaluate run=\S+ .*sampler=heun.*)", out)
    assert "is done: nothing to do" in out
    assert command is not None, out
    assert "--cfg" not in command[1]
    assert main([*shlex.split(command[1]), "--cfg", "job"]) == 0
    assert len(read_study(study)) == 2


def test_jobs_that_differ_in_the_sampler_alone_are_trained_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in TINY if not word.startswith("metric")]
    swept = ("sampler=ddim,heun", "seed=0,1")
    assert main(["train", "-m", f"root={tmp_path}", "study=s", *words, "metric=none", *swept]) == 0
    out, err = capfd.readouterr()
    assert err.count("jobs that differ only in sampler are one run") == 1
    assert "2 done" in out
    assert [run.record["sampler"] for run in read_study(tmp_path / "s")] == ["ddim", "ddim"]
    assert main(["train", f"root={tmp_path}", "study=s", *words, "metric=none", "sampler=heun", "seed=2"]) == 0
    assert "seed=0 draws its samples otherwise" in capfd.readouterr().err


README = re.findall(
    r"^diffexp ((?:sample|evaluate) [^#\n]+)", (Path(__file__).parents[2] / "README.md").read_text(), re.M
)


def test_the_readme_shows_both_commands() -> None:
    assert {line.split()[0] for line in README} == {"sample", "evaluate"}


@pytest.mark.parametrize("line", README)
def test_what_the_readme_says_to_type_runs(
    run: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.sub(r"\brun=\S+", f"run={run}", line))
    if words[0] == "evaluate":
        words += ["likelihood.count=4", "likelihood.steps=20", "likelihood.flow_steps=5"]  # for time's sake
    if "sampler=ancestral" in words:
        words.append("sampler.steps=50")  # for time's sake
    if "diagnostics=gradients" in words:
        words.append("diagnostics.batches=4")  # for time's sake
    assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_help_names_every_setting_and_no_group_that_is_not_taken(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert main([command, "--cfg", "job"]) == 0
    keys = set(re.findall(r"^(\w+):", capsys.readouterr().out, re.M))
    assert keys >= {"run", "out", "sampling", "sampler", "trainer"}
    assert all(re.search(rf"\b{key}[=.]", told) for key in keys), told
    groups = set(re.findall(r"^(\w+): ", told, re.M)) - {"usage"}
    assert groups == ({"sampler"} if command == "sample" else {"sampler", "metric", "diagnostics"})


REFUSED = {
    "sample run=nowhere": "run=nowhere: there is no run in that folder",
    "evaluate run=nowhere metric.count=3": "run=nowhere: there is no run in that folder",
    "sample run=RUN count=-1": "count=-1: give a positive number",
    "sample run=RUN count=few": "count=few: give a positive number",
    "sample run=RUN out=grid.jpg": "out=grid.jpg: images are written",
    "sample run=RUN metric.count=3": "metric.count=3: there is no key metric.count.",
    "evaluate run=RUN metric.cuont=3": "Did you mean metric.count?",
    "evaluate run=RUN sampler=ddmi": "Did you mean ddim?",
    "evaluate run=RUN sampler.steps=0": "sampler.steps=0",
    "evaluate run=RUN likelihood.count=-1": "likelihood.count=-1: must be a whole number, 0 or more",
    "evaluate run=RUN likelihood.variance=best": "likelihood.variance=best: must be beta, beta_tilde or optimal",
    "sample": "run=...: must be given",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_mistake_is_one_message(run: Path, typed: str, capfd: pytest.CaptureFixture[str]) -> None:
    command, *words = (word.replace("RUN", str(run)) for word in typed.split())
    assert main([command, *words]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"diffexp {command}: error: "), said
    assert REFUSED[typed] in said
    assert said.count("\n") == 1
    assert "type +" not in said


def test_a_run_without_a_checkpoint_is_one_message(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "s" / run.parent.name / run.name
    bare.mkdir(parents=True)
    for name in ("config.yaml", "run.json"):
        (bare / name).write_bytes((run / name).read_bytes())
    for command in ("sample", "evaluate"):
        assert main([command, f"run={bare}"]) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"diffexp {command}: error: ")
        assert "no checkpoint" in said
        assert said.count("\n") == 1


def test_a_run_is_found_from_where_one_stands_and_by_any_spelling(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    for typed in ("run=seed=0", "run='seed=0'", "run=./seed=0/", f"run={os.path.relpath(run)}"):
        assert "steps: 3" in settings(capsys, "sample", typed)


def test_a_runs_settings_leave_no_trace_for_the_next_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(capsys, "evaluate", f"run={run}")
    assert not {"own.yaml", "sampler", "metric"} & ConfigStore.instance().repo.keys()
    assert main(["train", "--help"]) == 0
    assert "own" not in re.findall(r"^sampler: (.*)$", capsys.readouterr().out, re.M)[0].split(", ")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data of known density."""
    root = tmp_path_factory.mktemp("synthetic")
    line = ["train", f"root={root}", "study=s", *TINY, "data=mixture", "target=x0"]
    assert main([*(word for word in line if not word.startswith("metric")), "metric=none"]) == 0
    (found,) = read_study(root / "s")
    return found.path


def test_bits_per_dim_stand_beside_the_best_possible(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("likelihood.count=12", "likelihood.steps=20", "likelihood.flow_steps=6")
    out = tmp_path / "e.json"
    assert main(["evaluate", f"run={synthetic}", f"out={out}", *small]) == 0
    told, written = capsys.readouterr().out, json.loads(out.read_text())
    metrics = written["metrics"]
    for name in ("bits_per_dim/vlb", "bits_per_dim/flow"):
        assert metrics[name] > metrics[f"{name}/optimum"], name
        assert metrics[f"{name}/stderr"] > 0
        assert re.search(rf"^{name} .* \+- .*best possible", told, re.M), told
    parts = sum(metrics[f"bits_per_dim/vlb/{part}"] for part in ("L_T", "kl", "L_0"))
    assert metrics["bits_per_dim/vlb"] == pytest.approx(parts)
    assert written["settings"]["likelihood"]["variance"] == "beta"
    assert metrics["val/excess_eps"] > 0

    assert main(["evaluate", f"run={synthetic}", f"out={out}", *small, "likelihood.variance=optimal"]) == 0
    best = json.loads(out.read_text())["metrics"]
    assert best["bits_per_dim/vlb"] < metrics["bits_per_dim/vlb"], "its variances suit the network's own errors"
    assert main(["evaluate", f"run={synthetic}", f"out={out}", "likelihood.count=0"]) == 0
    assert "bits_per_dim/vlb" not in json.loads(out.read_text())["metrics"]


def test_a_run_on_known_data_records_its_excess_and_the_optimum(synthetic: Path) -> None:
    (run,) = read_study(synthetic.parents[1])
    for name in ("eps", "x0", "v", "score"):
        assert run.final[f"val/excess_{name}"] > 0
        assert run.optimum[f"val/belief_{name}"] < run.final[f"val/belief_{name}"]
    assert run.optimum["val/bits_per_dim"] < run.final["val/bits_per_dim"]
