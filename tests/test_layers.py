"""Imports point down the rooms of the house, in no circle, and only the commands know Hydra."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffexp"
LAYERS = [
    {"shapes", "errors"},
    {"io"},
    {"schedule"},
    {"times", "weighting", "draws", "nn"},
    {"data"},
    {"metrics", "targets"},
    {"denoiser"},
    {"objective", "invertibility", "samplers", "oracle"},
    {"likelihood"},
    {"runs"},
    {"report"},
    {"training"},
    {"gradients"},
    {"check", "explain"},
    {"cli"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
ONLY_IN_CLI = {"hydra", "omegaconf"}
WITHOUT_TORCH = {"errors", "io", "runs", "report"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and p.name != "__main__.py")
PLUGINS = sorted((PACKAGE.parent / "hydra_plugins").rglob("*.py"))
MOST_LINES = 350


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    """The modules that a file imports, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported_by(path):
        root, *rest = name.split(".")
        if root == "diffexp" and rest and rest[0] in HEIGHT and rest[0] != here:
            assert HEIGHT[rest[0]] < HEIGHT[here], f"{here} must not import {rest[0]}"
        assert here == "cli" or root not in ONLY_IN_CLI, f"{here} must not import {root}"
        assert here not in WITHOUT_TORCH or root not in ("torch", "pytorch_lightning"), f"{here} imports {root}"


def test_every_module_has_its_layer() -> None:
    assert {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in FILES} == HEIGHT.keys()


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_the_launchers_know_nothing_of_diffexp(path: Path) -> None:
    """Any Hydra application can use them; what they need of it is a setting."""
    assert not [name for name in imported_by(path) if name.partition(".")[0] == "diffexp"]


def test_no_module_imports_itself_through_others() -> None:
    """Not even inside a function: two modules that need each other are one."""
    modules = {module_name(path): path for path in [*FILES, *PLUGINS]}
    arrows = {
        name: {there for there in imported_by(path) if there in modules and there != name}
        for name, path in modules.items()
    }
    for name, path in modules.items():  # a package's __init__ gathers its modules, which may not ask it back
        if path.name != "__init__.py":
            arrows[name] -= {package for package in arrows[name] if modules[package].name == "__init__.py"}
    order: list[str] = []
    while free := [name for name in arrows if not arrows[name] - set(order) and name not in order]:
        order += free
    assert not (circle := sorted(arrows.keys() - set(order))), f"in a circle, or above one: {circle}"


@pytest.mark.parametrize("path", [*FILES, *PLUGINS], ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_a_file_holds_one_idea(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{lines} lines: probably two ideas"
