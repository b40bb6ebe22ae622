"""Networks take their step on a GPU that is not there: on PyTorch's fake tensors."""

import pytest
import torch
from helpers import MODELS, short_run
from torch._subclasses.fake_tensor import FakeTensorMode

import lc
from lc import training
from lc.fast import FastTrainer, trainer
from lc.utils.device import to_device

GPU = torch.device("cuda", 1)
SGD = torch.optim.SGD


@pytest.fixture
def fake(monkeypatch):
    """Fake tensors on a GPU. PyTorch fakes no backward pass and no update: these do nothing."""
    def sgd(parameters, lr, **options):
        # it looks at the value, which a fake tensor does not have
        optimizer = SGD(parameters, lr=1.0, **options)
        optimizer.param_groups[0]["lr"], optimizer.step = lr, lambda: None
        return optimizer

    monkeypatch.setattr(torch.optim, "SGD", sgd)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(
        torch.nn.utils, "skip_init", lambda kind, *args, **options: kind(*args, **options))
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.mark.parametrize("name", [*MODELS, "MobileNet-v2"])
def test_a_network_takes_its_step_on_a_gpu(name, fake, monkeypatch):
    def forward(self, images, forward=FastTrainer.forward):
        logits.append(forward(self, images))
        return logits[0]

    logits = []
    monkeypatch.setattr(FastTrainer, "forward", forward)
    network, data = lc.freeze_spatial(lc.build_model(name, 10, 1)), lc.load_data("digits")
    with fake:
        network = to_device(network, GPU)
        for module in (training, trainer):  # fake weights move once only
            monkeypatch.setattr(module, "to_device", lambda network, device: network)
        fast = FastTrainer(network, data, short_run(name).recipe, 0, GPU, "bf16", graph=False)
        fast.step(24)
    assert logits[0].shape == (24, 10) and logits[0].dtype == torch.bfloat16
    tensors = [*logits, *network.parameters(), *network.buffers(), *fast.learned(), fast.losses,
               fast.count, fast.plan]
    assert {t.device for t in tensors} == {GPU}
    assert all(p.is_contiguous(memory_format=torch.channels_last)
               for p in network.parameters() if p.ndim == 4)
