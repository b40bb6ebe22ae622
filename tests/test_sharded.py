"""Sharded networks (FSDP2): two processes on this machine, under torchrun."""

import os
import subprocess
import sys

import pytest
import torch

import lc
from lc.utils.files import ROOT


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
    for _ in range(2):  # before and after a step of training
        assert [lc.accuracy(network, images, labels),
                lc.fgsm_accuracy(network, images, labels)] == expected
        network(images).sum().backward()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_network_is_evaluated():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, __file__], env=os.environ | {"PYTHONPATH": path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    in_each_process()
