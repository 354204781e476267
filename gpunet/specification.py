"""Names with parameters, such as ``"leaky_relu(0.1)"``, as the shell and saved models write them."""

from __future__ import annotations

import re

from gpunet.errors import InvalidValueError, shown

# For text without white space at its ends, so that the time it takes grows with the length and not with a power of it.
_PATTERN = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<number>[^()]*)\))?")


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
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise InvalidValueError(f"{argument}: cannot read {shown(text)}. Expected a name, or a name(number).")
    number = (match["number"] or "").strip()
    if not number:
        return match["name"].lower(), None
    try:
        return match["name"].lower(), float(number)
    except ValueError:
        raise InvalidValueError(f"{argument}: {shown(number)} in {shown(text)} is not a number.") from None
