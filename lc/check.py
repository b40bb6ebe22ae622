"""What a value must be, said in one line where it is not."""

import math
from numbers import Integral, Real


def one_line(error):
    """The message of another library's exception, to quote; its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def kind(what, value, wanted, name):
    """The value, of the type `wanted`, which goes by `name`. Raises as `whole`."""
    if not isinstance(value, wanted):
        raise ValueError(f"{what} must be {name}, not of type {type(value).__name__}")
    return value


def whole(what, value, least=1, most=math.inf):
    """The value, a whole number from `least` to `most`.

    Raises:
        ValueError: if it is anything else, with `what` it is.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{what} must be a whole number {limits}, not {value!r}")
    return value


def number(what, value, low, high, ends="[]"):
    """The value, a number in the interval from `low` to `high`; an end of "(" or ")" is outside of it. Raises as `whole`."""
    inside = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high  # False for nan
    if not inside or value == low and ends[0] == "(" or value == high and ends[1] == ")":
        raise ValueError(f"{what} must be a number in {ends[0]}{low}, {high}{ends[1]}, not {value!r}")
    return value
