"""The step of a GPU: stacked weights, compiled regions and CUDA graphs take the same steps as the core's trainer."""

import types

import pytest
import torch
from helpers import CPU, MODELS, epochs, short_run, trainer_of

import lc
from lc.fast import FastTrainer, trainer
from lc.training import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def state(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("model", ["ResNet-8-8", *MODELS])
def test_it_takes_the_steps_of_the_cores_trainer(model, frozen):
    core, fast = (trainer_of(short_run(model, frozen), dtype=torch.float64, kind=kind) for kind in (Trainer, FastTrainer))
    before = state(core)
    epochs(core), epochs(fast)
    torch.testing.assert_close(fast.losses, core.losses, rtol=1e-6, atol=1e-6)
    expected, actual = state(core), state(fast)
    assert list(actual) == list(expected)
    for name, start in before.items():
        update = (expected[name] - start).double().norm()
        assert (actual[name] - expected[name]).double().norm() <= 1e-6 * update, name  # zero where frozen


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
def test_a_cpu_takes_the_cores_own_step_and_a_gpu_the_fast_one(kind, monkeypatch):
    stacked, forward = [], FastTrainer.forward
    monkeypatch.setattr(FastTrainer, "forward", lambda self, images: stacked.append(1) or forward(self, images))
    lc.train(short_run(), device=kind, progress=False)
    assert bool(stacked) == (kind == "cuda")


@pytest.mark.parametrize("model", MODELS)
def test_warm_up_is_undone(model):
    plain, warmed = (trainer_of(short_run(model), kind=FastTrainer) for _ in range(2))
    for batch in (24, 16):
        warmed.warm_up(batch)
    epochs(plain), epochs(warmed)
    assert torch.equal(plain.losses, warmed.losses)
    after = state(warmed)
    assert all(torch.equal(tensor, after[name]) for name, tensor in state(plain).items())


def test_warm_up_draws_no_dropout():
    warmed, drawn = trainer_of(short_run("MobileNet-v2", train_images=24), kind=FastTrainer), torch.get_rng_state()
    warmed.warm_up(24, steps=1)
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_in_a_cuda_graph_equals_an_eager_one(model, precision, frozen):
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        eager, captured = (trainer_of(short_run(model, frozen), torch.device("cuda"), precision, kind=FastTrainer, graph=graph)
                           for graph in (False, True))
        assert set(captured.graphs) == {24, 16} and not eager.graphs
        epochs(eager), epochs(captured)
    torch.testing.assert_close(captured.losses, eager.losses, rtol=1e-5, atol=1e-6)
    after = state(captured)
    for name, tensor in state(eager).items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_learns_what_a_cpu_learns():
    cpu, gpu = trainer_of(short_run()), trainer_of(short_run(), torch.device("cuda"), kind=FastTrainer)
    epochs(cpu), epochs(gpu)
    torch.testing.assert_close(gpu.losses.cpu(), cpu.losses, rtol=2e-2, atol=2e-2)


@pytest.fixture
def pretended(monkeypatch):
    """A device that says it is a GPU; what is put on it is on the CPU."""
    monkeypatch.setattr(trainer, "to_device", lambda network, device: network)
    monkeypatch.setattr(Trainer, "__init__", lambda self, network, data, recipe, seed, device, precision, init=Trainer.__init__:
                        init(self, network, data, recipe, seed, CPU, precision))
    return types.SimpleNamespace(type="cuda")


def test_a_graph_that_cannot_be_captured_is_warned_of_and_training_goes_on(pretended, monkeypatch):
    def capture(self):
        self.graphs[24] = None
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(FastTrainer, "capture", capture)
    with pytest.warns(UserWarning, match=r"no CUDA graph could be captured \(operation not permitted\)"):
        stepwise = trainer_of(short_run(), pretended, kind=FastTrainer)
    plain = trainer_of(short_run(), kind=FastTrainer)
    assert epochs(stepwise) == epochs(plain)


def test_memory_that_runs_out_while_a_graph_is_captured_ends_the_run(pretended, monkeypatch):
    def capture(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FastTrainer, "capture", capture)
    with pytest.raises(torch.OutOfMemoryError):
        trainer_of(short_run(), pretended, kind=FastTrainer)
