"""Several trainings in one process, a step of each in turn: small networks share a GPU."""

from contextlib import ExitStack

import torch


def in_turn(trainings, n, device):
    """Runs generators such as `stepwise` to their ends, `n` at a time, a step of each in turn.

    Each has its own stream on a GPU and its own state of PyTorch's random numbers, so it computes
    what it computes alone. When one ends, the next begins. If one raises an error, the others are
    closed and the error is raised.

    Args:
        trainings: an iterable of generators. Each is taken when it begins.
        device: the `torch.device` of all of them.
    """
    trainings, running = iter(trainings), []
    with ExitStack() as closing:
        while True:
            while len(running) < n and (training := next(trainings, None)) is not None:
                closing.callback(training.close)
                running.append(_Turns(training, device))
            if not running:
                return
            running = [each for each in running if each.take()]


class _Turns:
    """One of the generators, with its stream and its random state."""

    def __init__(self, training, device):
        self.training, self.gpu = training, [device] if device.type == "cuda" else []
        self.stream = torch.cuda.Stream(device) if self.gpu else None
        self.state = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.gpu)]

    def take(self):
        """Takes a step. Returns whether there may be more."""
        with torch.random.fork_rng(self.gpu), torch.cuda.stream(self.stream):
            torch.set_rng_state(self.state[0])
            for state, gpu in zip(self.state[1:], self.gpu):
                torch.cuda.set_rng_state(state, gpu)
            try:
                next(self.training)
            except StopIteration:
                return False
            self.state = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.gpu)]
        return True
