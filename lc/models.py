"""The paper's low-resolution networks by the paper's own names (Sections 3 and 4)."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from .blocks import LCBlock
from .conversion import convert
from .initial import init_spatial
from .names import OFF_THE_SHELF, architecture, canonical_name, combines
from .utils import check

# torchvision's ResNets: (blocks per stage, bottleneck's channels per 64 of the stage)
RESNETS = {
    "ResNet-14": ((2, 2, 2), 64), "ResNet-18": ((2, 2, 2, 2), 64), "ResNet-34": ((3, 4, 6, 3), 64),
    "ResNet-50": ((3, 4, 6, 3), 64), "ResNet-101": ((3, 4, 23, 3), 64),
    "Wide-ResNet-50x2": ((3, 4, 6, 3), 128),
}


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: a 1x1 convolution and BatchNorm where the shape changes."""

    def __init__(self, conv, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        # A 1x1 convolution with stride 2 would do the same, but PyTorch 2.15.0 on a CPU with two
        # threads crashes in it below 8 channels. A slice's gradient would lose channels_last.
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
            nn.AvgPool2d(1, stride), nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class CIFARResNet(nn.Module):
    """CIFAR-ResNet-{depth}-{width}: three stages of (depth - 2) / 6 basic blocks.

    It is that of He et al. (2016), but for the shortcuts, which pad with zeros there.

    `conv(in_channels, out_channels, stride=1)` makes each of its spatial convolutions.
    """

    def __init__(self, conv, depth, width, num_classes, in_channels):
        super().__init__()
        self.conv1 = conv(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for stage in range(3):
            for i in range((depth - 2) // 6):
                stride = 2 if stage and i == 0 else 1
                blocks.append(BasicBlock(conv, channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))


def build_model(name, num_classes=10, in_channels=3):
    """A freshly initialised network by its name in the paper's notation.

    It takes `[batch, in_channels, height, width]` to logits `[batch, num_classes]`.
    `ResNet-{D}-{W}` and `ResNet-LC-{D}-{W}x{E}` are the CIFAR-ResNets of Section 4: with `-k9` for
    the kernel size (Section 4.3), `+BN`, `+ReLU` or `+BN+ReLU` for operations between the
    convolutions (Table 3), `~covariance` or another kind of `init_spatial` for the spatial filters
    alone, or `~identity` to start as the plain network (Section 6). `ResNet-14/18/34/50/101`,
    `Wide-ResNet-50x2` and `MobileNet-v2` are torchvision's for small images (Figure 1a).
    `ResNet-20` is `ResNet-20-16`.

    Raises:
        ValueError: if the name is unknown (the message lists the known), or a number is below 1.
    """
    name = canonical_name(name)
    check.integer("num_classes", num_classes)
    check.integer("in_channels", in_channels)
    if name in OFF_THE_SHELF:
        return _off_the_shelf(name, num_classes, in_channels)
    depth, width, expansion, kernel, between, initial = architecture(name)
    if expansion and initial != "identity":
        conv = partial(LCBlock, kernel_size=kernel, expansion=expansion,
                       between=between.split("+")[1:])
    else:
        conv = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2, bias=False)
    model = CIFARResNet(conv, depth, width, num_classes, in_channels)
    if initial == "identity":
        return convert(model, expansion, keep_function=True)
    return init_spatial(model, initial) if initial else model


def _off_the_shelf(name, num_classes, in_channels):
    from torchvision.models import mobilenet_v2, resnet  # importing torchvision takes seconds

    if name == "MobileNet-v2":
        # (expansion, channels, blocks, stride) as in torchvision, but stride 1 with 24 channels
        settings = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                    (6, 160, 3, 2), (6, 320, 1, 1)]
        model = mobilenet_v2(num_classes=num_classes, inverted_residual_setting=settings)
        stem = model.features[0][0] = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")  # as torchvision does
        return model
    layers, width = RESNETS[name]
    block = resnet.Bottleneck if combines(name) else resnet.BasicBlock
    model = resnet.ResNet(block, (*layers, 1)[:4], num_classes=num_classes, width_per_group=width)
    if len(layers) == 3:
        model.layer4 = nn.Identity()
        model.fc = nn.Linear(model.fc.in_features // 2, num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    for module in model.modules():  # PyTorch's default initialisation, not torchvision's
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    return model
