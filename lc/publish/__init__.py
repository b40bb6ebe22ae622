"""Notebooks executed in batch, and a static site of them."""
