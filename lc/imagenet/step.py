"""The training step on images, from timm's parts (procedure A2; Appendix A of the paper)."""

import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn.parallel import DistributedDataParallel

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ImageNetTrainer:
    """A network and its optimiser on the device of this process. All processes hold the same.

    Args:
        network: on the device, best in channels-last layout. It takes normalised images.
        steps: optimiser steps in an epoch.
        precision: "fp32", "bf16" or "fp16".
        accumulate: mini-batches of this process in each step.
    """

    def __init__(self, network, num_classes, recipe, steps, device, precision, accumulate=1):
        self.network, self.device, self.dtype = network.train(), device, AUTOCAST[precision]
        self.steps, self.accumulate, self.updates = steps, accumulate, 0
        self.optimizer = create_optimizer_v2(
            network, "lamb", lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, "cosine", num_epochs=recipe.epochs, min_lr=recipe.min_learning_rate,
            warmup_lr=recipe.warmup_learning_rate, warmup_epochs=recipe.warmup_epochs,
            step_on_epochs=recipe.step_on_epochs, updates_per_epoch=steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.criterion = BinaryCrossEntropy(smoothing=0.0, target_threshold=recipe.target_threshold)
        self.mixup = None
        if recipe.mixup + recipe.cutmix > 0:
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.0,
                               num_classes=num_classes)
        self.parallel = network
        if dist.is_initialized():
            # 1x1 kernels have several equivalent strides
            warnings.filterwarnings("ignore", "Grad strides do not match")
            self.parallel = DistributedDataParallel(
                network, device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True)

    def step(self, batches):
        """One optimisation step on the next `accumulate` mini-batches of an iterator.

        A mini-batch is images `[n, 3, h, w]` and labels int64 `[n]`, on the device. Returns the
        mean loss of this process's mini-batches, on the device.
        """
        # These depend on the number of the epoch or step alone: a checkpoint needs nothing of them.
        self.scheduler.step(self.updates // self.steps)
        self.scheduler.step_update(self.updates)
        mean = torch.zeros((), device=self.device)
        for i in range(1, self.accumulate + 1):
            # gradients are exchanged once a step
            waits = i < self.accumulate and self.parallel is not self.network
            with self.parallel.no_sync() if waits else nullcontext():
                loss = self._loss(*next(batches)) / self.accumulate
                self.scaler.scale(loss).backward()
            mean += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        return mean

    def _loss(self, images, labels):
        if self.mixup:
            images, labels = self.mixup(images, labels)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.parallel(images.contiguous(memory_format=torch.channels_last))
        return self.criterion(logits.float(), labels)

    def state(self):
        """Everything that the remaining steps depend on, besides the seed."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(), "updates": self.updates}

    def load(self, state):
        """Continues from a `state()`."""
        for part in ("network", "optimizer", "scaler"):
            getattr(self, part).load_state_dict(state[part])
        self.updates = state["updates"]
