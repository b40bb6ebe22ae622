"""The step of a GPU: what it computes, and the CUDA graph of it."""

import types
from contextlib import contextmanager, nullcontext
from unittest.mock import Mock

import pytest
import torch
from fast_helpers import Operations
from helpers import MODELS, epochs, same_bits, short_run, trainer_of

import lc
from lc.fast import FastTrainer, trainer
from lc.fast.trainer import CaptureError
from lc.run import Stopped
from lc.training import Trainer

# these differ from time to time
MEASURED = dict.fromkeys(("seconds", "setup_seconds", "images_per_second"))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def state(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


@pytest.mark.parametrize("kind", [Trainer, FastTrainer])
@pytest.mark.parametrize("model, frozen, products, gradients", [
    ("ResNet-8-8", False, 0, 9),
    ("ResNet-8-8", True, 0, 2),  # the two 1x1 shortcuts
    # seven blocks of six shapes: a product forward, and one for the gradient of each half
    ("ResNet-LC-8-8x2", False, 3, 9),
    ("ResNet-LC-8-8x2", True, 2, 9),
    ("ResNet-LC-8-8x2+BN+ReLU", True, 0, 9),  # the pointwise halves and the shortcuts
])
def test_no_gradient_of_a_frozen_weight_is_computed(model, frozen, products, gradients, kind):
    trained = trainer_of(short_run(model, frozen), kind=kind)
    with Operations() as operations:
        trained.step(16)
    count, of_classifier = operations.count, 2  # gradients: of its input and of its weight
    assert count["weight gradient"] == gradients
    blocks = 7 if kind is Trainer else 6
    assert count["mm"] + count["bmm"] == of_classifier + products * blocks


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
def test_a_cpu_takes_the_cores_own_step_and_a_gpu_the_fast_one(kind, monkeypatch):
    def forward(self, images, forward=FastTrainer.forward):
        stacked.append(self)
        return forward(self, images)

    stacked = []
    monkeypatch.setattr(FastTrainer, "forward", forward)
    lc.train(short_run(), device=kind, progress=False)
    assert bool(stacked) == (kind == "cuda")


def test_a_state_without_fuse_is_refused_with_it_on_a_cpu():
    run = short_run("ResNet-LC-8-8x2")
    trained = trainer_of(run)
    trained.step(16)
    with pytest.raises(ValueError, match="choice of --fuse"):
        trainer_of(run, kind=FastTrainer).load(trained.state())


@pytest.mark.parametrize("model", MODELS)
def test_warm_up_is_undone(model):
    plain, warmed = (trainer_of(short_run(model), kind=FastTrainer) for _ in range(2))
    for batch in (24, 16):
        warmed.warm_up(batch)
    epochs(plain)
    epochs(warmed)
    assert torch.equal(plain.losses, warmed.losses)
    torch.testing.assert_close(state(warmed), state(plain), rtol=0, atol=0)


def test_warm_up_is_undone_after_an_error_and_draws_no_dropout(monkeypatch):
    def step(self, batch, step=Trainer.step):
        step(self, batch)
        raise RuntimeError("out of order")

    warmed = trainer_of(short_run("MobileNet-v2", train_images=24), kind=FastTrainer)
    before, drawn = state(warmed), torch.get_rng_state()
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(RuntimeError, match="out of order"):
        warmed.warm_up(24)
    assert warmed.count.item() == 0 and torch.equal(torch.get_rng_state(), drawn)
    torch.testing.assert_close(state(warmed), before, rtol=0, atol=0)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("model, fuse", [
    *((model, False) for model in ("ResNet-8-8", "MobileNet-v2", *MODELS)), (MODELS[0], True)])
# a graph of the second GPU is captured there
@pytest.mark.parametrize("index", range(max(1, torch.cuda.device_count())))
def test_a_step_in_a_cuda_graph_equals_an_eager_one(model, fuse, precision, frozen, index):
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        eager, captured = (
            trainer_of(short_run(model, frozen), torch.device("cuda", index), precision,
                       kind=FastTrainer, graph=graph, fuse=fuse) for graph in (False, True))
        assert set(captured.graphs) == {24, 16} and not eager.graphs
        assert eager.fused == captured.fused == fuse
        _, generator = eager.generators()
        drawn = generator.get_state()
        epochs(eager)
        generator.set_state(drawn)  # both drop the same
        epochs(captured)
    torch.testing.assert_close(captured.losses, eager.losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state(captured), state(eager), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_failed_capture_trains_the_run_step_by_step_in_a_fresh_process(monkeypatch, tmp_path):
    def failing(self, *arguments, graph, init=FastTrainer.__init__, **options):
        init(self, *arguments, graph=False, **options)
        if graph:
            for p in self.network.parameters():
                p.data.fill_(9)
            self.generator.seed()
            torch.seed()
            raise CaptureError("no CUDA graph could be captured (operation not permitted)")

    monkeypatch.setattr(FastTrainer, "__init__", failing)
    # for the choice of the trainer alone
    monkeypatch.setattr(trainer, "resolve_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(trainer, "failed_captures", [])
    run, options = short_run(frozen=False), dict(device="cpu", precision="fp32", progress=False)
    with pytest.warns(UserWarning, match=r"\(operation not permitted\); training step by step"):
        again = lc.train(run, **options)
    plain = lc.train(run, graph=False, **options)
    assert str(again.row() | MEASURED) == str(plain.row() | MEASURED)  # nan differs from nan
    same_bits(again, plain)
    # later runs of this process are trained in another one at once
    with pytest.raises(Stopped):
        lc.train(run, stop=lambda: True, checkpoint=tmp_path / "kept.pt", **options)
    assert (tmp_path / "kept.pt").exists()
    with pytest.raises(ValueError, match="unknown precision"):
        lc.train(run, **options | {"precision": "fp64"})


@pytest.fixture
def streams(monkeypatch):
    """PyTorch's streams and graphs, played. It has the `current` stream."""
    played = types.SimpleNamespace(current=Mock())

    @contextmanager
    def stream(other):
        before, played.current = played.current, other
        try:
            yield
        finally:
            played.current = before

    @contextmanager
    def graph(graph, stream):
        before, played.current = played.current, stream
        yield
        played.current = before  # after an error, PyTorch 2.11 does not

    for name, value in dict(device=nullcontext, Stream=Mock, stream=stream, CUDAGraph=object,
                            graph=graph, current_stream=lambda: played.current).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return played


def test_a_step_is_captured_in_the_stream_that_warmed_up_and_measures_as_single_steps(
        streams, monkeypatch):
    def step(self, batch):
        cudnn = torch.backends.cudnn
        flags.append((cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32))
        used.append(streams.current)

    flags, used, before = [], [], (streams.current, torch.backends.cudnn.benchmark)
    trained = trainer_of(short_run(), kind=FastTrainer)
    monkeypatch.setattr(Trainer, "step", step)
    trained.step(24)
    trained.capture()
    assert set(trained.graphs) == {24, 16} and len(used) == 1 + 2 * (3 + 1)
    assert len(set(flags)) == 1 and flags[0][1]
    assert used[0] is before[0] and len(set(used)) == 2 and before[0] not in used[1:]
    assert (streams.current, torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize("error, raised", [
    (RuntimeError("operation not permitted"), CaptureError),
    (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    (torch.AcceleratorError("CUDA error: out of memory"), torch.AcceleratorError)])
def test_an_error_of_the_capture_leaves_its_stream(error, raised, streams, monkeypatch):
    trained, before = trainer_of(short_run(), kind=FastTrainer), streams.current
    monkeypatch.setattr(FastTrainer, "warm_up", Mock())
    monkeypatch.setattr(Trainer, "step", Mock(side_effect=error))
    with pytest.raises(raised, match=str(error)):
        trained.capture()
    assert streams.current is before
