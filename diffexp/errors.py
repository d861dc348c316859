"""The one error for a person's mistake."""


class UserError(ValueError):
    """Bad input: its text is the whole message, which names what was given, why it cannot work and what would.

    Raised where the input is judged. The command line prints the text and exits with 2; from Python it is an ordinary
    ValueError. Any other exception is a bug and keeps its traceback.
    """
