"""The training step on a GPU: weights in few large tensors, compiled regions, and one CUDA graph for the whole step."""

from .trainer import FastTrainer, train

__all__ = ["FastTrainer", "train"]
