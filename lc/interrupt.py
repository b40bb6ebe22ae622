"""Being told to stop, by a person or by a cluster's scheduler, at a moment of one's own choice."""

import signal
from contextlib import contextmanager


@contextmanager
def stop_on_signals(*signals):
    """Yield a function that says whether one of the signals has come; by default SIGTERM, SIGINT and SIGUSR1.

    A second signal of the same kind does what it did before. Only in the main thread, as all signal handlers of Python.
    """
    came, before = [], {}

    def handle(number, frame):
        came.append(number)
        signal.signal(number, before[number])

    for number in signals or (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        before[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
