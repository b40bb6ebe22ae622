"""A training loop as in PyTorch's tutorials, with which the project's own step is compared."""

import torch
from PIL import Image
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, RandomSampler


class Images(Dataset):
    """Images and labels one by one, as from torchvision's CIFAR10."""

    def __init__(self, data):
        from torchvision import transforms  # importing torchvision takes seconds

        self.images, self.labels = data.x_train.numpy(), data.y_train.tolist()
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ])

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def plain_loop(network, data, recipe, device):
    """A generator that trains in fp32, with PyTorch's defaults, and yields its optimiser."""
    # as long an epoch as CIFAR's: the workers start anew in each
    sampler = RandomSampler(data.y_train, num_samples=50_000)
    loader = DataLoader(
        Images(data), recipe.batch_size, sampler=sampler, num_workers=torch.get_num_threads(),
        pin_memory=device.type == "cuda", drop_last=True)
    optimizer = SGD(
        [p for p in network.parameters() if p.requires_grad], lr=recipe.learning_rate,
        momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
    scheduler = CosineAnnealingLR(optimizer, recipe.epochs * len(loader))
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    network.train()
    total = 0.0
    while True:
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item()
            yield optimizer
