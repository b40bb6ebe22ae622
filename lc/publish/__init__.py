"""Notebooks executed in batch."""
