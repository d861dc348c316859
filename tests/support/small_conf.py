"""A small configuration tree for the tests of the command line."""

import textwrap
from pathlib import Path

CONF = {
    "train.yaml": """
        defaults:
          - target: epsilon
          - schedule: linear
          - experiment: null
          - _self_
        seed: 0
        trainer:
          max_steps: 10
        given: 1
    """,
    "target/epsilon.yaml": "std: 1",
    "target/score.yaml": "std: 2\nsteps: ${schedule.steps}",
    "schedule/linear.yaml": "steps: 1000",
    "schedule/cosine.yaml": "steps: 50",
    "experiment/quick.yaml": """
        # @package _global_
        hydra:
          mode: MULTIRUN
          sweeper:
            params:
              target: epsilon,score
              seed: 0,1
    """,
    "experiment/broken.yaml": """
        # @package _global_
        defaults:
          - override /target: scoer
    """,
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes the files below the folder, each without its common indent, and returns the folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip("\n") + "\n")
    return folder
