"""Two things to play with, as HTML and JavaScript that need neither a kernel nor a network: filters by E, and least squares."""

from .filters import filters
from .least_squares import least_squares

__all__ = ["filters", "least_squares"]
