"""Finding configurations and choices: the packaged folder, the search path, the nearest name."""

from pathlib import Path

import pytest
from omegaconf import DictConfig
from small_conf import CONF, write

import diffexp
from diffexp.cli.config import choices, compose_choice, conf_dir, quoted
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.errors import nearest


def within(conf: Path, argv: list[str], look: object) -> None:
    """Calls `look` where a task would be called."""
    assert callable(look)
    assert run_hydra_app(look, "train", ["--config-path", str(conf), *argv]) == 0


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "conf", CONF)


def test_a_checkout_has_its_configuration_beside_the_package() -> None:
    assert (conf_dir() / "train.yaml").is_file()
    assert conf_dir().is_absolute()


def test_a_wheel_has_its_configuration_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diffexp" / "conf").mkdir(parents=True)
    monkeypatch.setattr(diffexp, "__file__", str(tmp_path / "diffexp" / "__init__.py"))
    assert conf_dir() == tmp_path / "diffexp" / "conf"


def test_the_nearest_name_is_close_or_none() -> None:
    names = ["epsilon", "scaled_noise", "trainer.max_steps", "optimizer.lr"]
    assert nearest("epsilo", names) == "epsilon"
    assert nearest("lr", names) == "optimizer.lr"
    assert nearest("picture", names) is None


def test_choices_come_from_the_whole_search_path(conf: Path, tmp_path: Path) -> None:
    write(tmp_path / "it's, mine", {"target/mine.yaml": "std: 9"})
    write(tmp_path / "theirs", {"target/theirs.yaml": "std: 9"})
    found: list[list[str]] = []
    look = lambda cfg: found.append(choices("target"))  # noqa: E731
    within(conf, [], look)
    within(conf, ["--config-dir", "it's, mine", f"hydra.searchpath=[file://{tmp_path}/theirs]"], look)
    odd = quoted(f"file://{tmp_path}/it's, mine")
    within(conf, [f"hydra.searchpath=[{odd}]"], look)
    assert found == [
        ["epsilon", "score"],
        ["epsilon", "mine", "score", "theirs"],
        ["epsilon", "mine", "score"],
    ]


def test_a_composed_choice_stands_in_the_jobs_configuration(conf: Path) -> None:
    """Its interpolations see the job's other choices; the job's own choice of the group stays as it is."""

    def look(cfg: DictConfig) -> None:
        chosen = compose_choice("target", "score", cfg)
        assert (chosen.std, chosen.steps) == (2, 50)
        assert cfg.target == {"std": 5}

    within(conf, ["schedule=cosine", "target.std=5"], look)


def test_a_choice_that_is_not_there_is_told_with_the_nearest(conf: Path) -> None:
    def look(cfg: DictConfig) -> None:
        with pytest.raises(ValueError, match=r"scoer in target\. Did you mean score\? Choices: epsilon, score\."):
            compose_choice("target", "scoer", cfg)

    within(conf, [], look)
