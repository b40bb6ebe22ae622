"""The training step on a GPU: weights in few large tensors, compiled regions, and one CUDA graph for the whole step."""

from .in_turn import in_turn
from .trainer import FastTrainer, stepwise, train

__all__ = ["FastTrainer", "in_turn", "stepwise", "train"]
