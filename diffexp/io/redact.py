"""Text made safe to show and to keep: no character that moves a terminal's cursor, no password."""

import os
import re

_SECRET_NAME = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_SECRET_SETTING = re.compile(
    r"(api_?key|secret|secret_key|access_key|private_key|password|passwd|\w+_token)$", re.IGNORECASE
)
_IN_URL = re.compile(r"(?<=://)([^\s/:@\"']*:)?[^\s/@\"']+@")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text with control characters, and those that turn its direction, written as \x1b; lines and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    r"""The text with everything but letters, signs and plain spaces written out, line breaks as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """The text without passwords in URLs and without the environment's keys and tokens."""
    text = _IN_URL.sub(lambda found: f"{found[1] or ''}***@", text)
    for secret in sorted(_environment().values(), key=len, reverse=True):  # one may hold another
        text = text.replace(secret, "***")
    return text


def secret_in(key: str, value: object) -> str | None:
    """Why a setting must not be written into a file, without its value; None for a harmless one.

    Args:
        key: Its name, with dots.
        value: What it is set to.
    """
    text = str(value)
    if isinstance(value, str) and value and _SECRET_SETTING.fullmatch(key.rpartition(".")[2]):
        return "its name is that of a password or key"
    for name, secret in _environment().items():
        if secret in text:
            return f"it holds the value of {name} from the environment"
    return "it holds a URL with a password" if _IN_URL.search(text) else None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 8}
