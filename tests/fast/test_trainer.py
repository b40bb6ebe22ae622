"""The step of a GPU: stacked weights and CUDA graphs take the same steps as the core's trainer."""

import types
from contextlib import contextmanager, nullcontext

import pytest
import torch
from fast_helpers import Operations
from helpers import MODELS, epochs, short_run, trainer_of

import lc
from lc.fast import FastTrainer, trainer
from lc.fast.trainer import CaptureError
from lc.run import Stopped
from lc.training import Trainer

# these differ from time to time
MEASURED = dict.fromkeys(("seconds", "setup_seconds", "images_per_second"))
WARM_UP = FastTrainer.warm_up
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def state(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def assert_same(trained, expected):
    actual = state(trained)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("model", ["ResNet-8-8", *MODELS])
def test_it_takes_the_steps_of_the_cores_trainer(model, frozen):
    core, fast = (trainer_of(short_run(model, frozen), dtype=torch.float64, kind=kind)
                  for kind in (Trainer, FastTrainer))
    before = state(core)
    epochs(core)
    epochs(fast)
    torch.testing.assert_close(fast.losses, core.losses, rtol=1e-6, atol=1e-6)
    expected, actual = state(core), state(fast)
    assert list(actual) == list(expected)
    for name, start in before.items():
        update = (expected[name] - start).double().norm()  # zero where frozen
        assert (actual[name] - expected[name]).double().norm() <= 1e-6 * update, name


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


@pytest.mark.parametrize("model", MODELS)
def test_warm_up_is_undone(model):
    plain, warmed = (trainer_of(short_run(model), kind=FastTrainer) for _ in range(2))
    for batch in (24, 16):
        warmed.warm_up(batch)
    epochs(plain)
    epochs(warmed)
    assert torch.equal(plain.losses, warmed.losses)
    assert_same(warmed, state(plain))


def test_warm_up_is_undone_after_an_error(monkeypatch):
    def step(self, batch, step=Trainer.step):
        step(self, batch)
        if next(fails):
            raise RuntimeError("out of order")

    fails = iter([False, True])
    warmed = trainer_of(short_run(), kind=FastTrainer)
    before = state(warmed)
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(RuntimeError, match="out of order"):
        warmed.warm_up(24)
    assert warmed.count.item() == 0
    assert_same(warmed, before)


def test_warm_up_draws_no_dropout():
    warmed = trainer_of(short_run("MobileNet-v2", train_images=24), kind=FastTrainer)
    drawn = torch.get_rng_state()
    warmed.warm_up(24, steps=1)
    assert torch.equal(torch.get_rng_state(), drawn)


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
    after = state(captured)
    for name, tensor in state(eager).items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_learns_what_a_cpu_learns():
    cpu = trainer_of(short_run())
    gpu = trainer_of(short_run(), torch.device("cuda"), kind=FastTrainer)
    epochs(cpu)
    epochs(gpu)
    torch.testing.assert_close(gpu.losses.cpu(), cpu.losses, rtol=2e-2, atol=2e-2)


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
    assert again.arrays.keys() == plain.arrays.keys()
    parameters = (result.network.parameters() for result in (again, plain))
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))
    # later runs of this process are trained in another one at once
    with pytest.raises(Stopped):
        lc.train(run, stop=lambda: True, checkpoint=tmp_path / "kept.pt", **options)
    assert (tmp_path / "kept.pt").exists()
    with pytest.raises(ValueError, match="unknown precision"):
        lc.train(run, **options | {"precision": "fp64"})


def test_cudnn_measures_alike_in_warm_up_capture_and_single_steps(streams, monkeypatch):
    def step(self, batch):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32))

    seen, trained = [], trainer_of(short_run(), kind=FastTrainer)
    monkeypatch.setattr(Trainer, "step", step)
    before = torch.backends.cudnn.benchmark
    trained.step(24)
    trained.capture()
    WARM_UP(trained, 24)
    assert len(seen) == 6 and len(set(seen)) == 1 and seen[0][1]
    assert torch.backends.cudnn.benchmark == before


class Stream:
    """In place of `torch.cuda.Stream`."""

    def wait_stream(self, other):
        pass


@pytest.fixture
def streams(monkeypatch):
    """PyTorch's streams and graphs, played.

    It has the `current` stream, and those in which steps were `warmed` and `captured`.
    """
    played = types.SimpleNamespace(current=Stream(), warmed=[], captured=[])

    @contextmanager
    def stream(other):
        before, played.current = played.current, other
        try:
            yield
        finally:
            played.current = before

    @contextmanager
    def graph(graph, stream=None):
        before, played.current = played.current, stream
        played.captured.append(stream)
        yield
        played.current = before  # after an error, PyTorch 2.11 does not

    for name, value in dict(
            device=nullcontext, Stream=Stream, stream=stream, CUDAGraph=object, graph=graph,
            current_stream=lambda: played.current).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(FastTrainer, "warm_up",
                        lambda self, batch: played.warmed.append(played.current))
    return played


def test_a_step_is_captured_in_the_stream_that_warmed_up_on_its_gpu(streams):
    trained, before = trainer_of(short_run(), kind=FastTrainer), streams.current
    trained.capture()
    assert set(trained.graphs) == {24, 16} and streams.current is before
    assert len(streams.captured) == 2 and streams.captured == streams.warmed
    assert before not in streams.captured


@pytest.mark.parametrize("error, raised", [
    (RuntimeError("operation not permitted"), CaptureError),
    (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    (torch.AcceleratorError("CUDA error: out of memory"), torch.AcceleratorError)])
def test_an_error_of_the_capture_leaves_its_stream(error, raised, streams, monkeypatch):
    def step(self, batch):
        raise error

    trained, before = trainer_of(short_run(), kind=FastTrainer), streams.current
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(raised, match=str(error)):
        trained.capture()
    assert streams.current is before
