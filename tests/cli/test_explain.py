"""`diffexp explain`, from the command line to its text, page and numbers."""

import json
import re
from pathlib import Path

import pytest
from small_conf import write

from diffexp.cli.explain import in_one_table
from diffexp.cli.main import main
from diffexp.report.format import precise_percent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is printed, on one line."""
    assert main(["explain", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert not list(Path().iterdir())
    return text


def test_step_noise_on_digits_is_mostly_irreducible_label_noise(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    text = printed(capsys, "target=step_noise", "data=digits", "nodes=4")
    assert "How well can step_noise and epsilon be predicted on digits?" in text
    assert "Its loss starts at 0.01005, that of predicting zero, and cannot fall below 0.00990" in text
    assert "98.5 % of the first is irreducible label noise" in text
    assert "A network that has learned nothing looks converged." in text
    assert "that of these 1,438 training images: the loss of a network that has memorised them" in text
    assert "best linear denoiser" in text
    assert "The population's optimum lies between the two" in text
    assert text.endswith("Page: explain.html")
    page = (folder / "explain.html").read_text()
    assert "cannot fall below 0.00990" in page
    assert "optimum of these 1,438 images" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page.partition("<script>")[0])  # fetches nothing
    drawings = json.loads(page.partition('id="drawings">')[2].partition("</script>")[0])
    assert {name: len(variants) for name, variants in drawings.items()} == {
        "shares": 1, "r2": 1, "losses": 2, "weight": 1,
    }  # fmt: skip
    bars = {trace["name"]: trace["x"] for trace in drawings["shares"][0]["data"]}
    assert bars["label noise (irreducible)"] == pytest.approx([0.98522, 0], abs=1e-5)
    assert [sum(bar) for bar in zip(*bars.values(), strict=True)] == pytest.approx([1, 1], abs=1e-3)


def test_numbers_of_data_whose_density_is_known_are_the_populations(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    targets = "target=epsilon,scaled_noise,step_noise,step_difference"
    text = printed(capsys, targets, "data=mixture", "nodes=6", "out=numbers.json")
    assert "the optimum is the population's: no network can do better" in text
    assert "memorised" not in text
    numbers = json.loads((folder / "numbers.json").read_text(), parse_constant=pytest.fail)
    assert list(numbers["targets"]) == ["epsilon", "scaled_noise", "step_noise", "step_difference"]
    assert numbers["images"] is None
    assert numbers["settings"]["data"] == "mixture"
    assert numbers["command"] == (
        "diffexp explain target=epsilon 'against=[scaled_noise,step_noise,step_difference]' data=mixture nodes=6"
    )
    mean = numbers["targets"]["step_noise"]["mean"]
    assert (mean["zero"], mean["label_noise"]) == pytest.approx((0.010050, 0.009902), abs=1e-6)
    assert len(numbers["r2"]) == len(numbers["log_snr"]) == len(numbers["targets"]["epsilon"]["curve"]["optimum"])


def test_a_target_of_ones_own_is_explained_beside_the_others(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    conf = write(folder / "conf", {"target/mine.yaml": "_target_: diffexp.targets.ScaledNoise"})
    printed(capsys, f"--config-dir={conf}", "target=scaled_noise,mine,v", "data=gaussian", "out=a.json")
    targets = json.loads((folder / "a.json").read_text())["targets"]
    assert targets["mine"] == targets["scaled_noise"]
    assert targets["mine"] != targets["v"]


def test_what_does_not_apply_is_not_printed(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = printed(capsys, "target=epsilon", "data=gaussian", "data.side=2", "out=null", "weighting=snr")
    assert "than another" not in text  # there is one target
    assert "with q = 1" not in text  # and its loss is weighted
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("target=step_nois", "target=step_nois: there is no step_nois in target. Did you mean step_noise?"),
        ("target=step_noise,epsilom", "target=epsilom: there is no epsilom in target. Did you mean epsilon?"),
        ("target=v,flow", "target=flow on schedule=linear_beta:"),
        ("target=flow", "Take target=v, or a continuous schedule: rectified"),
        ("target=epsilon schedule=rectified times.t_max=1.0", "Fine on them: edm, flow,"),
        ("-m target=v,x0", "use target=a,b,c without -m"),
        ("target=v,x0 against=[score]", "against=[score] beside several targets"),
        ("out=page.pdf", "out=page.pdf: the page is written to a .html, the numbers to a .json"),
        ("out=nowhere/page.html", "there is no folder nowhere"),
        ("nodes=3", "nodes=3: a curve needs at least 4"),
        ("objective.space=eps", "there is no eps. Did you mean epsilon?"),
        ("data=cifar10 data.hub=null", "data=cifar10 needs images. Give data.path=PATH"),
    ],
)
def test_what_cannot_be_explained_is_one_message(capsys: pytest.CaptureFixture[str], words: str, text: str) -> None:
    assert text in error_of(capsys, *words.split())


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("target=v,x0,mine", ["target=v", "against=[x0,mine]"]),
        ("target=v", ["target=v"]),
        ("target.sigma_data=0.5", ["target.sigma_data=0.5"]),
        ("against=[v,x0]", ["against=[v,x0]"]),
    ],
)
def test_several_targets_become_one_table_and_no_sweep(word: str, words: list[str]) -> None:
    assert in_one_table(word) == words


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.98522, "98.5 %"), (0.999952, "99.9952 %"), (0.9999999, "100 %"), (1.0, "100 %"), (0.01478, "1.48 %"),
     (0.0, "0 %"), (-1e-12, "0 %"), (0.5, "50.0 %")],
)  # fmt: skip
def test_percentages_distinguish_a_share_from_all_and_from_nothing(share: float, text: str) -> None:
    assert precise_percent(share) == text
