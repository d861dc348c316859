"""torchrun, for a process that has imported torch already."""

import sys

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run() -> int:
    """`torchrun sys.argv[1:]`"""
    try:
        torchrun.main(sys.argv[1:])
    except ChildFailedError as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


def run_forks() -> int:
    """The same of `-m diffexp`, with ranks that are forks of this process: they need not import torch either."""

    def launch(config: LaunchConfig, entrypoint: object) -> elastic_launch:
        return elastic_launch(config, _rank)

    torchrun.elastic_launch = launch
    sys.argv.insert(1, "--start-method=fork")
    return run()


def _rank(*command: str) -> None:
    from diffexp.cli.main import main

    sys.argv = list(command[command.index("diffexp") :])
    if code := main():
        sys.exit(code)
