"""The one error for invalid input, and suggestions for it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: its text is the whole message, which names what was given, why it cannot work and what would.

    Raised where the input is validated. The command line prints the text and exits with 2; from Python it is a plain
    ValueError. Any other exception is a bug and keeps its traceback.
    """


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None where nothing is close.

    A word that is some choice's last dotted part stands for it: `lr` is nearest to `optimizer.lr`.
    """
    choices = list(choices)
    ending = [choice for choice in choices if choice.endswith(f".{word}")]
    close = ending or difflib.get_close_matches(word, choices, n=1)
    return close[0] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` Did you mean x?`, with a space before it, or nothing where nothing is close."""
    near = nearest(word, choices)
    return f" Did you mean {near}?" if near else ""
