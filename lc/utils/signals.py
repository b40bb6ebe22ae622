"""Stopping at a step of one's own choice after a signal from a person or a scheduler."""

import signal
from contextlib import contextmanager


@contextmanager
def stop_on_signals():
    """Yields a function that tells whether SIGTERM, SIGINT or SIGUSR1 has come.

    A second signal of the same kind has its usual effect. This works in the main thread only.
    """
    received, previous = [], {}

    def handle(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        previous[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
