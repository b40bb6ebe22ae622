"""Calls a function in a process of its own, and lets signals stop it at a step of its choice."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from .files import ROOT

CODE = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from lc.utils import fresh_process; fresh_process.main(sys.argv[1])")


def in_fresh_process(function, *arguments, environment=None, stop=None, **options):
    """Calls a function of a module of `lc` in a new process. What it raises is raised.

    What it takes and returns is pickled; tensors come back on the CPU.

    Args:
        environment: variables besides those of this process.
        stop: if given, the function gets a `stop` of its own, which returns True once this has.

    Raises ChildProcessError if the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="lc-") as folder:
        call = function, arguments, options, stop is not None, os.getpid()
        torch.save(call, Path(folder, "call"))
        # in a session of its own: Ctrl-C in a terminal reaches it through `stop` only
        process = subprocess.Popen([sys.executable, "-c", CODE, folder], start_new_session=True,
                                   env=os.environ | (environment or {}))
        told, ready = False, Path(folder, "ready")
        try:
            while process.poll() is None:
                if not told and stop is not None and ready.exists() and stop():
                    told = True
                    # not SIGTERM, which others may have sent: a second one would kill it
                    process.send_signal(signal.SIGUSR1)
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
        if process.returncode:
            raise ChildProcessError(f"its process ended with status {process.returncode}")
        outcome = torch.load(Path(folder, "outcome"), map_location="cpu", weights_only=False)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def stop_on_signals():
    """Yields a function that tells whether SIGTERM, SIGINT, SIGHUP or SIGUSR1 has come.

    SIGHUP comes when a terminal is closed, and is ignored as before under `nohup`. A second signal
    of the same kind has its usual effect. This works in the main thread only.
    """
    received, previous = [], {}

    def handle(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(folder):
    """The new process: reads `call`, writes what the function returns or raises to `outcome`.

    It also stops if the process that started it has died.
    """
    call = torch.load(Path(folder, "call"), weights_only=False)
    function, arguments, options, stops, parent = call
    with stop_on_signals() as stop:
        Path(folder, "ready").touch()
        if stops:
            options["stop"] = lambda: stop() or os.getppid() != parent
        try:
            outcome = function(*arguments, **options)
        except Exception as error:
            outcome = error
    torch.save(outcome, Path(folder, "outcome"))
