"""A training loop as PyTorch's tutorials write it: what the project's own step is compared with."""

import os

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

LENGTH = 50_000  # images of an epoch, as CIFAR has


class Images(Dataset):
    """Images and labels one by one, as torchvision's CIFAR10 gives them; `data` is gone through again until an epoch is full."""

    def __init__(self, data):
        from torchvision import transforms  # here, since importing torchvision takes seconds

        self.images, self.labels = data.x_train.numpy(), data.y_train.tolist()
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std)])

    def __len__(self):
        return LENGTH

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i % len(self.images)])), self.labels[i % len(self.labels)]


class Loop:
    """DataLoader, fp32, step by step, PyTorch's own defaults; `step()` trains on the next batch.

    Args:
        network: to be trained, moved to the device.
        data: a `Data` of images with 3 channels.
        recipe: a `Recipe`.
    """

    def __init__(self, network, data, recipe, device):
        self.network, self.device = network.to(device).train(), device
        self.loader = DataLoader(Images(data), recipe.batch_size, shuffle=True, num_workers=len(os.sched_getaffinity(0)),
                                 pin_memory=device.type == "cuda", drop_last=True)
        self.batches = iter(self.loader)
        self.optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=recipe.learning_rate,
                                         momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, recipe.epochs * len(self.loader))
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.loss = 0.0

    def step(self):
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        images, labels = (t.to(self.device, non_blocking=True) for t in batch)
        self.optimizer.zero_grad()
        loss = self.criterion(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.loss += loss.item()
