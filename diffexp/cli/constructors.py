"""What a class named in the configuration says when it is built with what was typed."""

import dis
import re
import traceback
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException

OURS = ("diffexp", "hydra_plugins")

# What the program itself passes to a class, beside the settings of its node.
_CALLED = {
    "network": "It is called as network(image_shape=, schedule=, data_std=, **its own settings); "
    "what it returns as forward(x_t, t).",
    "optimizer": "It is called as optimizer(parameters, **its own settings).",
}


def instantiation_mistake(error: InstantiationException) -> str | None:
    """What was typed wrong, where that is why Hydra could not build a node; else None."""
    cause = error.__cause__
    if cause is None:  # Hydra's own words about the node
        return str(error)
    first, _, rest = str(error).partition("\n")
    where = rest.rpartition("full_key: ")[2] if "full_key: " in rest else "the configuration"
    if named := re.match(r"Error locating target '([^']+)'", first):
        return _not_found(f"{where}._target_={named[1]}", named[1], str(cause))
    called = re.match(r"Error in call to target '([^']+)'", first)
    return constructor_mistake(cause, where, called[1] if called else "")


def deferred_call(error: BaseException) -> tuple[str, str] | None:
    """The node and the class of a `_partial_` call that raised this error; None if it did not come from one."""
    trace, found = error.__traceback__, None
    while trace is not None:
        call: Any = trace.tb_frame.f_locals.get("self")
        if isinstance(where := getattr(call, "_hydra_full_key", None), str):
            found = where, f"{call.func.__module__}.{getattr(call.func, '__qualname__', '')}"
        trace = trace.tb_next
    return found


def constructor_mistake(cause: BaseException, where: str, target: str) -> str | None:
    """What a class refused, with the key it was told by; None for a bug inside a class of ours.

    A refusal is an argument that it does not take or lacks, an error that a `raise` of the class's own package (or of
    ours) says in words, and whatever a class of somebody else's raises.

    Args:
        cause: What building it raised.
        where: The key of the node.
        target: The class, with its module.
    """
    name = target.rpartition(".")[2]
    if isinstance(cause, TypeError) and re.match(
        rf"({re.escape(name)}|(\w+\.)*__(init|new)__)\(?.*argument", str(cause)
    ):
        return " ".join([f"{where}: {str(cause).rstrip('.')}.", _CALLED.get(where, "")]).strip()
    spoken = (
        isinstance(cause, ValueError | OSError | ImportError) or type(cause).__name__ == "MisconfigurationException"
    )
    if spoken and raised_by(cause.__traceback__, {*OURS, target.partition(".")[0]}):
        return told_by_its_key(where, str(cause))
    if target.partition(".")[0] not in OURS:
        return f"{where}: {target} raises {type(cause).__name__}: {' '.join(str(cause).split())}{line_of(cause)}."
    return None


def line_of(error: BaseException) -> str:
    """Where in a person's file it was raised, " (mine.py, line 3)"; a SyntaxError says so itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if len(frames) < 2 or isinstance(error, SyntaxError):
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def raised_by(trace: TracebackType | None, packages: Collection[str]) -> bool:
    """Whether the error comes from a `raise` statement of these packages, and not from what they called."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    there = str(frame.f_globals.get("__name__", "")).partition(".")[0] in packages
    return there and dis.opname[frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def told_by_its_key(where: str, said: str) -> str:
    """The words of a class, which knows its arguments but not where they were typed."""
    if f"{where}." in said or f"{where}=" in said:
        return said
    if re.match(r"\w+=", said):
        return f"{where}.{said}"
    overrides: list[str] = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    setting = rf"\+*{re.escape(where)}\.(?!_)"
    typed = {word.partition("=")[0]: word for word in overrides if re.match(setting, word)}
    return f"{' '.join(typed.values()) or where}: {said}"


def _not_found(start: str, target: str, said: str) -> str:
    missing = re.search(r"No module named '([^']+)'", said)
    if missing and f"{target}.".startswith(f"{missing[1]}."):
        module = missing[1].partition(".")[0]
        return (
            f"{start}: there is no module {missing[1]}. If {module}.py is your own, say where it lies, before the "
            f"command: PYTHONPATH=FOLDER_OF_{module}.py diffexp ..."
        )
    return f"{start}: {' '.join(said.split())}"
