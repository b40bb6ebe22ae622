"""The training step on a GPU: few large tensors, compiled regions, one CUDA graph."""

from .in_turn import in_turn
from .trainer import FastTrainer, stepwise, train

__all__ = ["FastTrainer", "in_turn", "stepwise", "train"]
