"""Checks of values. Each raises a ValueError of one line that says what the value must be."""

import math
from numbers import Integral, Real


def one_line(error):
    """The message of another library's exception on one line, or its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def kind(what, value, wanted, name):
    """Returns the value if it has the type `wanted`, which the message calls `name`."""
    if not isinstance(value, wanted):
        raise ValueError(f"{what} must be {name}, not of type {type(value).__name__}")
    return value


def integer(what, value, least=1, most=math.inf):
    """Returns the value if it is an integer from `least` to `most`, and not True or False."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{what} must be an integer {limits}, not {value!r}")
    return value


def fields(of, kind, names, *limits):
    """Checks fields of a dataclass by `integer` or `number`. One may be None if its default is.

    NumPy's numbers become Python's, as which a row is read back and a checkpoint names them.
    """
    for name in names.split():
        value = getattr(of, name)
        if value is not None or getattr(type(of), name, 0) is not None:
            kind(name, value, *limits)
            object.__setattr__(of, name, getattr(value, "item", lambda: value)())


def number(what, value, low, high, ends="[]"):
    """Returns the value if it is a number in the interval, without its ends at "(" and ")"."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    inside = real and low <= value <= high  # False for nan
    if not inside or value == low and ends[0] == "(" or value == high and ends[1] == ")":
        raise ValueError(f"{what} must be a number in {ends[0]}{low}, {high}{ends[1]}, "
                         f"not {value!r}")
    return value
