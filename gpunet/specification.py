"""Names with parameters, such as ``"leaky_relu(0.1)"``, as the shell and saved models write them."""

from __future__ import annotations

import re

from gpunet.errors import InvalidValueError

_PATTERN = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?:\(\s*(?P<number>[^()]*?)\s*\))?\s*\Z")


def split_name(argument: str, text: str) -> tuple[str, float | None]:
    """Split ``"name"`` or ``"name(number)"`` into the name and the number.

    Parameters
    ----------
    argument : str
        The argument the text was given for; error messages name it.
    text : str
        What was given.

    Returns
    -------
    tuple of str and (float or None)

    Raises
    ------
    InvalidValueError
        The text is neither form.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise InvalidValueError(f"{argument}: cannot read {text!r}. Expected a name, or a name(number).")
    number = match["number"]
    if not number:
        return match["name"].lower(), None
    try:
        return match["name"].lower(), float(number)
    except ValueError:
        raise InvalidValueError(f"{argument}: {number!r} in {text!r} is not a number.") from None
