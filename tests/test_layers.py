"""Imports point down the layers, and only the applications know Hydra and W&B."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffexp"
LAYERS = [
    {"shapes", "files", "heartbeat", "progress", "records", "plain_text"},
    {"schedule"},
    {"times", "weighting", "draws", "nn", "ema", "parallel"},
    {"data"},
    {"pictures"},
    {"metrics", "targets"},
    {"denoiser"},
    {"objective", "conditioning", "samplers", "oracle", "bayes", "likelihood", "flow_likelihood"},
    {"sampling", "validation", "explanation", "proofs"},
    {"module", "gradients", "examination"},
    {"consequences"},
    {"runs", "studies"},
    {"states"},
    {"callbacks"},
    {"report"},
    {"apps"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
ONLY_IN_APPS = {"hydra", "omegaconf", "wandb"}
WITHOUT_TORCH = {"heartbeat", "runs", "states", "studies", "records", "report", "files", "plain_text"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def imported_by(path: Path) -> set[str]:
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
        assert here == "apps" or root not in ONLY_IN_APPS, f"{here} must not import {root}"
        assert here not in WITHOUT_TORCH or root not in ("torch", "pytorch_lightning"), f"{here} imports {root}"


def test_every_module_has_its_layer() -> None:
    assert {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in FILES} == HEIGHT.keys()
