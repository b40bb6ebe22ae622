"""The training step on a GPU: few large tensors, compiled regions, one CUDA graph."""

from .trainer import FastTrainer, train

__all__ = ["FastTrainer", "train"]
