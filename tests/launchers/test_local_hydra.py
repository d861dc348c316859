"""`hydra/launcher=local` against Hydra's own launcher, on an application with a configuration of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_app import environment
from small_conf import write
from thousand import right, swept

SWEEPER = """
import json
import os
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf


class Recording(BasicSweeper):
    \"\"\"Writes what the launcher gives back.\"\"\"

    def sweep(self, arguments):
        launch = self.launcher.launch

        def recorded(batch, initial_job_idx):
            returns = launch(batch, initial_job_idx=initial_job_idx)
            Path(self.config.record).write_text(json.dumps([
                {
                    "status": each.status.name, "overrides": list(each.overrides), "task": each.task_name,
                    "cfg": OmegaConf.to_container(each.cfg, resolve=True), "folder": os.path.abspath(each.working_dir),
                    "number": each.hydra_cfg.hydra.job.num,
                    "out": each.hydra_cfg.hydra.runtime.output_dir,
                    "value": each.return_value if each.status.name == "COMPLETED" else None,
                }
                for each in returns
            ]))
            return returns

        self.launcher.launch = recorded
        return super().sweep(arguments)
"""

APP = """
import hydra
from omegaconf import OmegaConf


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    if cfg.text == "wrong":
        raise ArithmeticError("the text is wrong")
    return {"length": len(cfg.text), "lists": OmegaConf.to_container(cfg.lists)}


if __name__ == "__main__":
    main()
"""

CONFIG = """
    text: plain
    lists: [1]
    drop: me
    keep: {a: 1, b: 2}
    record: null
    hydra:
      sweeper:
        _target_: hydra_plugins.recording.Recording
"""

TEXTS = (
    "it's",
    'a "b" [c, {d: 1}] (e) #f',
    "$HOME ${oc.env:HOME} * 100% \\",
    "größer 世界 🙂",
    " ",
    "a=b,c",
    "null",
    "1e3",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, {"app.py": APP, "hydra_plugins/recording.py": SWEEPER, "conf/config.yaml": CONFIG})


def swept_by(launcher: str, folder: Path, *words: str) -> tuple[list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """What the launcher returned to the sweeper, and the finished process. They share one folder, in turn."""
    out = folder / launcher
    line = [sys.executable, "app.py", "-m", f"hydra/launcher={launcher}", "record=returned.json", *words]
    done = subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120)
    (folder / "out").rename(out)
    return json.loads((folder / "returned.json").read_text()), done


def quoted(text: str) -> str:
    """In Hydra's quotes, with nothing of it interpolated."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${") + "'"


def test_hydra_receives_the_same_as_from_its_own_launcher(folder: Path) -> None:
    """Overrides of every kind, a job that fails between others that do not, what tasks return, folders and files."""
    words = (
        f"text={','.join([quoted(text) for text in TEXTS[:4]] + ['wrong'] + [quoted(text) for text in TEXTS[4:]])}",
        "lists=[[1,[a,'b c']],[{k: [null, true, 0.5]}]]", "+new=1", "++keep.a=3", "~drop", "~keep.b=2",
        "+seen='${keep.a}'", "+more={x: {y: [1]}}", "hydra.sweep.dir=out",
        "hydra.sweep.subdir='n ${hydra.job.num}'",
    )  # fmt: skip
    basic, by_hydra = swept_by("basic", folder, *words)
    local, by_us = swept_by("local", folder, *words, "hydra.launcher.gpus=[]")
    assert local == basic
    assert [job["status"] for job in local] == ["COMPLETED"] * 4 + ["FAILED"] + ["COMPLETED"] * 4
    assert [job["cfg"]["text"] for job in local if job["status"] == "COMPLETED"] == list(TEXTS)
    assert local[0]["value"] == {"length": 4, "lists": local[0]["cfg"]["lists"]}
    assert (by_hydra.returncode, by_us.returncode) == (1, 1)
    assert "ArithmeticError: the text is wrong" in by_hydra.stderr
    assert "1 of 9 jobs failed" in by_us.stderr
    assert "ArithmeticError: the text is wrong" in by_us.stdout
    for number in range(9):
        for name in (".hydra/config.yaml", ".hydra/overrides.yaml"):
            ours, theirs = (folder / by / f"n {number}" / name for by in ("local", "basic"))
            assert ours.read_text() == theirs.read_text()


def test_a_job_may_move_into_its_folder_as_with_hydras_own_launcher(folder: Path) -> None:
    words = ("text=a,b", "hydra.job.chdir=true", "hydra.sweep.dir=out")
    basic, _ = swept_by("basic", folder, *words)
    local, _ = swept_by("local", folder, *words, "hydra.launcher.gpus=[]")
    assert local == basic
    assert local[1]["folder"] == local[1]["out"]


def test_of_many_jobs_that_crash_in_many_ways_none_is_lost_or_run_twice(tmp_path: Path) -> None:
    """`make thousand` does it with a thousand."""
    result = swept(tmp_path, jobs=20, crash_every=5, at_a_time=2)
    right(result, jobs=20, crash_every=5)
