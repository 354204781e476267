"""Names with parameters, such as ``"leaky_relu(0.1)"``, as the shell and saved models write them."""

from __future__ import annotations

import re

from gpunet.errors import InvalidTypeError, InvalidValueError, shown

# For text without white space at its ends, so that the time it takes grows with the length and not with a power of it.
_PATTERN = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<numbers>[^()]*)\))?")
_OWN_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def check_own_name(name: str) -> str:
    """Return ``name`` if the user may call something of their own so, or raise.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Not a string; or of other characters than lower-case letters, digits and underscores.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"name: got {shown(name)}. Expected a string.")
    if not _OWN_NAME.match(name):
        raise InvalidValueError(f"name: {shown(name)} is not valid. Expected lower-case letters, digits, underscores.")
    return name


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
    name, numbers = _split(argument, text, "name(number)")
    if not numbers:
        return name, None
    return name, _number(argument, text, numbers)


def split_numbers(argument: str, text: str) -> tuple[str, list[float]]:
    """Split ``"name"`` or ``"name(number, ...)"`` into the name and the numbers.

    Parameters
    ----------
    argument, text : str
        As in :func:`split_name`.

    Returns
    -------
    tuple of str and list of float

    Raises
    ------
    InvalidValueError
        The text is neither form.
    """
    name, numbers = _split(argument, text, "name(number, ...)")
    return name, [_number(argument, text, number.strip()) for number in numbers.split(",")] if numbers else []


def _split(argument: str, text: str, form: str) -> tuple[str, str]:
    """Return the name, and what is between the brackets."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise InvalidValueError(f"{argument}: cannot read {shown(text)}. Expected a name, or a {form}.")
    return match["name"].lower(), (match["numbers"] or "").strip()


def _number(argument: str, text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise InvalidValueError(f"{argument}: {shown(number)} in {shown(text)} is not a number.") from None
