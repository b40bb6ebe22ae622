"""The training step on photographs, from timm's parts (procedure A2 of "ResNet strikes back"; Appendix A of the paper)."""

import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from .images import seed_everything

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, by channel; for any set, as timm does
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A network and its optimiser, on this process's device; the other processes, if there are any, have the same.

    Args:
        network: takes normalised images `[n, 3, h, w]`; those of its parameters with `requires_grad` are trained. It lies on
            the device, best in channels-last layout.
        steps: optimiser steps in an epoch.
        accumulate: batches of this process in each step.
        precision: "fp32", "bf16" or "fp16".
    """

    def __init__(self, network, num_classes, recipe, steps, device, precision, accumulate=1):
        from timm.data import Mixup
        from timm.loss import BinaryCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2

        self.network, self.device, self.dtype = network.train(), device, AUTOCAST[precision]
        self.steps, self.accumulate, self.updates = steps, accumulate, 0
        self.optimizer = create_optimizer_v2(network, "lamb", lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, "cosine", num_epochs=recipe.epochs, min_lr=recipe.min_learning_rate,
            warmup_lr=recipe.warmup_learning_rate, warmup_epochs=recipe.warmup_epochs, step_on_epochs=recipe.step_on_epochs,
            updates_per_epoch=steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.criterion = BinaryCrossEntropy(smoothing=0.0, target_threshold=recipe.target_threshold)
        self.mixup = recipe.mixup + recipe.cutmix > 0 and Mixup(
            mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, label_smoothing=0.0, num_classes=num_classes)
        self.mean, self.std = (255 * torch.tensor(values, device=device).view(-1, 1, 1) for values in (MEAN, STD))
        self.parallel = network
        if dist.is_initialized():
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels, whose strides are not unique
            self.parallel = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None,
                                                    gradient_as_bucket_view=True)

    def step(self, batches):
        """One optimisation step.

        Args:
            batches: an iterator over `(images, labels, key)`, of which it takes `accumulate`: images uint8 `[n, 3, h, w]`, labels
                int64 `[n]`, and the seed of Mixup and stochastic depth.

        Returns:
            The mean loss of this process's batches, on the device.
        """
        # timm's schedule is a function of the epoch or of the step alone, so that nothing of it needs to be kept
        self.scheduler.step(self.updates // self.steps)
        self.scheduler.step_update(self.updates)
        mean = torch.zeros((), device=self.device)
        for i in range(1, self.accumulate + 1):
            images, labels, key = next(batches)
            seed_everything(key)
            last = i == self.accumulate
            with nullcontext() if last or self.parallel is self.network else self.parallel.no_sync():
                loss = self._loss(images, labels) / self.accumulate
                self.scaler.scale(loss).backward()
            mean += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        return mean

    def _loss(self, images, labels):
        images, labels = (t.to(self.device, non_blocking=True) for t in (images, labels))
        images = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.mixup:
            images, labels = self.mixup(images, labels)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.parallel(images)
        return self.criterion(logits.float(), labels)

    def state(self):
        """All that the steps to come depend on, beside the seed."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(), "updates": self.updates}

    def load(self, state):
        """Take up the training that `state()` told of."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]
