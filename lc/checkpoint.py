"""A training on disk: one that is cut off goes on from there, on a CPU to the same bits."""

import time
import warnings
import zipfile
from pathlib import Path

import torch

from .check import one_line
from .files import replacing

EVERY = 120.0  # seconds between two checkpoints: shorter runs leave none


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another training."""


class Checkpoint:
    """The file that keeps one training.

    Args:
        path: None for none.
        training: text that says which training it is: the run with its recipe, the precision, the kind of device.
    """

    def __init__(self, path, training):
        self.path, self.training = path and Path(path), training
        self.written = time.monotonic()

    def load(self):
        """What was saved last, with every tensor on the CPU; None if there is nothing.

        Raises:
            CheckpointError: for a damaged file, or one of another training.
        """
        if not self.path or not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as f:
                if not zipfile.is_zipfile(f):  # of which mmap says nothing that helps
                    raise ValueError("it is no zip archive")
            saved = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            training, state = saved["training"], saved["state"]
        except Exception as error:  # whatever zipfile and pickle come upon
            raise CheckpointError(f"{self.path}: damaged checkpoint ({one_line(error)[:80]}); delete it to train from the "
                                  "start") from None
        if training != self.training:
            raise CheckpointError(f"{self.path}: checkpoint of another training ({training}); delete it to train from the start")
        return state

    def due(self):
        """Whether it is time to save again."""
        return self.path is not None and time.monotonic() - self.written > EVERY

    def save(self, state):
        """Replace the file. Where the disk is full or read-only, this is said aloud, and the training goes on."""
        if not self.path:
            return
        self.written = time.monotonic()
        try:
            with replacing(self.path) as f:
                torch.save({"training": self.training, "state": state}, f)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            warnings.warn(f"{self.path}: no checkpoint could be written ({one_line(error)[:80]})", stacklevel=2)
