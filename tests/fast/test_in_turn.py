"""Several trainings in one process."""

import pytest
import torch
from helpers import CPU, After, short_run

from lc import training
from lc.fast import FastTrainer
from lc.fast.in_turn import in_turn
from lc.training import Stopped

NAMES = "MobileNet-v2", "ResNet-LC-8-8x2", "ResNet-8-8", "ResNet-LC-8-8x2+BN+ReLU"  # the first has dropout
RUNS = [short_run(name, frozen=bool(i % 2), seed=i, **dict(train_images=24, test_images=8) if i == 0 else {})
        for i, name in enumerate(NAMES)]
OPTIONS = dict(device="cpu", precision="fp32", progress=False)


@pytest.mark.parametrize("n", [2, 5])
def test_each_trains_to_the_bits_that_it_has_alone(n):
    found, order = {}, []

    def one(run):
        steps = training.stepwise(FastTrainer, run, stop=lambda: order.append(run.id), **OPTIONS)
        found[run.id] = yield from steps

    before = torch.get_rng_state()
    in_turn(map(one, RUNS), n, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert order[:4] == [run.id for run in (RUNS[:2] * 2 if n == 2 else RUNS)]
    for run in RUNS:
        alone = training.finish(training.stepwise(FastTrainer, run, **OPTIONS))
        assert found[run.id].train_loss == alone.train_loss and found[run.id].accuracy == alone.accuracy
        weights, expected = (result.network.state_dict() for result in (found[run.id], alone))
        assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_an_error_closes_the_others_and_no_other_begins():
    closed, begun = [], []

    def one(name):
        begun.append(name)
        try:
            yield
            if name == "b":
                raise KeyError(name)
            yield
        finally:
            closed.append(name)

    with pytest.raises(KeyError, match="b"):
        in_turn(map(one, "abc"), 2, CPU)
    assert begun == ["a", "b"] and sorted(closed) == ["a", "b"]


def test_all_that_are_running_are_stopped_at_a_step_of_their_own(tmp_path):
    stop, stopped = After(5), []

    def one(run):
        try:
            yield from training.stepwise(FastTrainer, run, stop=stop, checkpoint=tmp_path / f"{run.seed}.pt", **OPTIONS)
        except Stopped:
            stopped.append(run.seed)

    in_turn(map(one, RUNS[1:3]), 2, CPU)
    assert sorted(stopped) == [1, 2] and {path.name for path in tmp_path.iterdir()} == {"1.pt", "2.pt"}
    again, alone = (training.finish(training.stepwise(FastTrainer, RUNS[1], checkpoint=kept, **OPTIONS))
                    for kept in (tmp_path / "1.pt", None))
    assert (again.train_loss, again.accuracy) == (alone.train_loss, alone.accuracy)
