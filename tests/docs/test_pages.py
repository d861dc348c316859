"""The pages under docs/ show code that runs, and name files and modules that exist."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from synthetic import write_study

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", re.S)
"""A file that a reader is asked to write: its name at the end of a sentence, then its content."""
FILE = re.compile(r"`((?:conf|diffexp|docs|experiments|tests|tools)/[\w/.]+\.\w+)`")
SMALL = (
    "trainer.max_steps=2",
    "training.batch_size=8",
    "validation.count=16",
    "validation.batch_size=16",
    "sampler.steps=2",
    "sampling.grid=4",
    "metric=none",
    "logger=none",
)
EXTENSIONS = {
    "target": ("target=mine",),
    "data": ("data=stripes", "network.widths=[8]", "network.attention=[false]"),
    "network": ("network=convnet",),
    "metric": ("metric=nearest", "metric.also.nearest.count=4"),
}


def written(page: str, folder: Path) -> list[Path]:
    """The files that a page of docs/extending asks for, in the folder."""
    files: list[Path] = []
    for name, content in BLOCK.findall((DOCS / "extending" / f"{page}.md").read_text()):
        files.append(folder / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(content)
    return files


@pytest.fixture
def in_single_precision() -> None:
    import torch

    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_single_precision")
@pytest.mark.parametrize("page", EXTENSIONS)
def test_a_part_written_as_its_page_says_trains(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffexp.cli.main import main

    assert any(file.suffix == ".py" for file in written(page, tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    line = ["train", f"--config-dir={tmp_path / 'myconf'}", f"root={tmp_path / 'runs'}", "study=s", *SMALL]
    assert main([*line, *EXTENSIONS[page]]) == 0


def test_the_figure_of_its_page_is_drawn(tmp_path: Path) -> None:
    from diffexp.cli.main import main

    (file,) = written("figure", tmp_path)
    study = write_study(tmp_path, targets=("epsilon", "x0"), seeds=(0,), lines=5, validations=2, images=False)
    assert main(["report", str(study), "--figure", str(file)]) == 0
    page = (study / "report.html").read_text()
    assert "Each point is a row" in page
    assert "Not drawn" not in page


def test_the_example_of_the_theory_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "reference" / "theory.md").read_text(), re.S)
    exec(compile(code, "theory.md", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_the_modules_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in re.findall(r"^::: (\S+)", text, re.M) if importlib.util.find_spec(name) is None]
    missing += [name for name in FILE.findall(text) if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_the_site_lists_every_page() -> None:
    def files(node: object) -> set[str]:
        if isinstance(node, str):
            return {node}
        return set().union(*map(files, node.values() if isinstance(node, dict) else node))

    listed = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES}
