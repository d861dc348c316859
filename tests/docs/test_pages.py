"""The pages under docs/ show code that runs, and name files and modules that exist."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

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
}


@pytest.fixture
def in_single_precision() -> None:
    import torch

    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_single_precision")
@pytest.mark.parametrize("page", EXTENSIONS)
def test_a_part_written_as_its_page_says_trains(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffexp.cli.main import main

    blocks = BLOCK.findall((DOCS / "extending" / f"{page}.md").read_text())
    assert any(name.endswith(".py") for name, _ in blocks)
    for name, content in blocks:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    line = ["train", f"--config-dir={tmp_path / 'myconf'}", f"root={tmp_path / 'runs'}", "study=s", *SMALL]
    assert main([*line, *EXTENSIONS[page]]) == 0


def test_the_code_of_the_python_page_runs() -> None:
    text = (DOCS / "python.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(code, "docs/python.md", "exec"), {"__name__": "docs"})


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
