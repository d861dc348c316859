"""`diffexp completion bash` prints completion.bash, which completes commands and the settings that Hydra lists."""

import sys
from importlib.resources import files


def main(argv: list[str]) -> int:
    """Prints the script, for `eval "$(diffexp completion bash)"`; returns the exit code."""
    if argv == ["bash"]:
        print((files("diffexp.cli") / "completion.bash").read_text(encoding="utf-8"), end="")
        return 0
    if argv in (["--help"], ["-h"]):
        print('usage: diffexp completion bash\n\nFor ~/.bashrc: eval "$(diffexp completion bash)"')
        return 0
    shell = " ".join(argv) or "no shell"
    print(f"diffexp completion: error: {shell}: there is a script for bash.", file=sys.stderr)
    return 2
