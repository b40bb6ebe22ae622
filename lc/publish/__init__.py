"""Notebooks in batch."""
