"""The one exception that users are meant to read."""


class InputError(Exception):
    """Something outside the code is wrong: the message names the file or key, what was expected and what to do."""
