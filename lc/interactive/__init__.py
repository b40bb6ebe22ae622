"""Two pages to play with, in HTML and JavaScript that need neither a kernel nor a network."""

from .filters import filters
from .least_squares import least_squares

__all__ = ["filters", "least_squares"]
