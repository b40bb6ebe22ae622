"""Checkpoints: an interrupted training continues from its last one, on a CPU to the same bits."""

import time
import warnings

import torch

from .check import one_line
from .device import git_version
from .files import expanded, replacing

INTERVAL = 120.0  # seconds between two checkpoints; shorter runs write none


class CheckpointError(ValueError):
    """The checkpoint is damaged, or it belongs to another training."""


class Checkpoint:
    """The checkpoint file of one training; without a path, there are no checkpoints.

    The text `training` identifies it: run, recipe, precision and kind of device.
    """

    def __init__(self, path, training):
        self.path, self.training = path and expanded(path), training
        self.commits = [git_version()]  # of `lc`, that took part
        self.written = time.monotonic()

    def load(self):
        """The state that was saved last, on the CPU; None without a file."""
        if not self.path or not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            training, state = saved["training"], saved["state"]
        except Exception as error:  # zipfile and pickle raise many kinds
            raise self.error(f"damaged checkpoint ({one_line(error)[:80]})") from None
        if training != self.training:
            other, here = (text.split(", ") for text in (training, self.training))
            differ = ", ".join(each for each in other if each not in here)
            raise self.error(f"checkpoint of another training ({differ or training})")
        before = saved.get("commits", ["unknown"])  # older files lack it
        self.commits = list(dict.fromkeys(before + self.commits))
        return state

    @property
    def git(self):
        """The commits that took part in the training, for its row."""
        return "+".join(self.commits)

    def error(self, why):
        """The error to raise if the file does not fit."""
        return CheckpointError(f"{self.path}: {why}; delete it to train from the start")

    def due(self):
        """Whether it is time for the next checkpoint."""
        return self.path is not None and time.monotonic() - self.written > INTERVAL

    def save(self, state):
        """Replaces the file. If the disk is full or read-only, this only warns."""
        if not self.path:
            return
        self.written = time.monotonic()
        try:
            with replacing(self.path) as f:
                torch.save({"training": self.training, "commits": self.commits, "state": state}, f)
        except (OSError, RuntimeError) as error:  # torch.save's own of a full disk is the second
            warnings.warn(f"{self.path}: no checkpoint could be written "
                          f"({one_line(error)[:80]})", stacklevel=2)
