"""Sharded networks (FSDP2): two processes on this machine, under torchrun."""

import pytest
import torch
from helpers import torchrun

import lc


def in_each_process():
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    network, images = lc.build_model("ResNet-LC-8-4x2").eval(), torch.rand(120, 3, 8, 8)
    labels = network(images).argmax(1)
    labels[::3] = 0
    expected = [evaluate(network, images, labels) for evaluate in (lc.accuracy, lc.fgsm_accuracy)]
    for block in network.blocks:
        fully_shard(block)
    fully_shard(network)
    for _ in range(2):  # before and after a backward pass
        assert [lc.accuracy(network, images, labels),
                lc.fgsm_accuracy(network, images, labels)] == expected
        network(images).sum().backward()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_network_is_evaluated():
    torchrun(__file__)


if __name__ == "__main__":
    in_each_process()
