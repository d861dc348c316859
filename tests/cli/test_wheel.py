"""The wheel carries conf/ and the launcher, and works from another folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this tree, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_every_file_of_conf_is_in_the_wheel(unpacked: Path) -> None:
    here = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    there = {path.relative_to(unpacked / "diffexp/conf") for path in (unpacked / "diffexp/conf").rglob("*.yaml")}
    assert here == there
    assert len(there) > 60
    for name in ("report/page.css", "report/page.js", "cli/completion.bash"):
        assert (unpacked / "diffexp" / name).is_file()


def test_it_composes_a_sweep_far_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r}); import diffexp; print(diffexp.__file__);"
        "from diffexp.cli.main import main;"
        "sys.exit(main(['train', 'experiment=quick', 'target=v', '--cfg', 'all']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(unpacked))
    assert "_target_: diffexp.targets.V" in done.stdout
    assert "hydra_plugins.diffexp_local_launcher" in done.stdout
