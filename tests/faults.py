"""What test_faults.py makes faults with: forked sweeps, crash points in calls, small disks."""

import ctypes
import errno
import fcntl
import functools
import gc
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import lc
from lc import results, study
from lc.utils import checkpoint

RECIPE = lc.Recipe("faults", epochs=2, batch_size=8, train_images=16, test_images=8)  # 4 steps
RUNS = [lc.Run("ResNet-LC-8-4x1", "digits", frozen, seed, RECIPE)
        for seed in range(3) for frozen in (False, True)]
FORK = multiprocessing.get_context("fork")
SPENT = {"seconds", "setup_seconds", "images_per_second"}  # these differ from time to time
# Of Linux's unshare and mount
NEWNS, NEWUSER, RDONLY, REMOUNT, BIND, REC, PRIVATE = (
    0x20000, 0x10000000, 1, 32, 4096, 16384, 1 << 18)


class NotPossible(Exception):
    """A fault that cannot be made here, such as a disk that may not be mounted."""


def warm_up(reference):
    """An uninterrupted sweep. It leaves this process with what its children need, and no thread."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    checkpoint.INTERVAL = -1.0  # after every step
    results.append = functools.partial(append_and_log, results.append)
    sweep(RUNS, reference)
    gc.disable()  # a collection would write to every page, and so copy it in each child


def sweep(runs, store, **options):
    os.environ["LC_RESULTS_DIR"] = str(store)
    return study.train_missing(runs, device="cpu", precision="fp32", **options)


def append_and_log(append, result):
    """`results.append` that no run may reach twice; it notes the trained weights."""
    assert result.id not in results.load_rows(), f"{result.id} was trained again"
    append(result)
    weights = b"".join(tensor.numpy().tobytes() for tensor in result.network.state_dict().values())
    with open(log(os.environ["LC_RESULTS_DIR"]), "a") as f:
        f.write(f"{result.id} {hashlib.sha256(weights).hexdigest()}\n")


def log(store):
    return Path(f"{store}.log")


def start(function, *arguments):
    """A child that calls a function. What it returns, or a `ResultsError`, is its last word."""
    def child():
        try:
            said.send(function(*arguments))
        except lc.ResultsError as error:
            said.send(str(error))
        except NotPossible as error:
            said.send(error)

    heard, said = FORK.Pipe(duplex=False)
    process = FORK.Process(target=child)
    process.start()
    said.close()
    process.heard = heard
    return process


def word(process):
    """The last word of a child that ended by itself; None of one that was killed."""
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    said = process.heard.recv() if process.exitcode == 0 else None
    if isinstance(said, NotPossible):
        raise said
    return said


def last_word(function, *arguments):
    return word(start(function, *arguments))


def check(store, reference, runs=RUNS, but=()):
    """The store has what the uninterrupted sweep left, each run once, and no other file."""
    rows, expected = results.load_rows(store), results.load_rows(reference)
    ids = {run.id for run in runs}
    assert set(rows) == ids
    paths = [store / "runs.csv", *(results.arrays_path(run_id, store) for run_id in ids)]
    assert {path for path in files(store) if path.suffix != ".lock"} - set(but) == set(paths)
    for run_id in ids:
        assert bits(run_id, store) == bits(run_id, reference)
        for column in set(expected[run_id]) - SPENT:
            assert repr(rows[run_id][column]) == repr(expected[run_id][column])
        assert 0 < rows[run_id]["seconds"] < 600 and rows[run_id]["images_per_second"] > 0
    lines, told = log(store).read_text().splitlines(), log(reference).read_text().splitlines()
    assert set(lines) <= set(told) and max(Counter(lines).values()) == 1


def bits(run_id, store):
    return {name: (array.dtype, array.shape, array.tobytes())
            for name, array in results.load_arrays(run_id, store).items()}


def files(store):
    return [path for path in store.rglob("*") if path.is_file()]


def faulty(n, fault, store, function, *arguments):
    """Calls a function whose n-th call that changes a file of the store meets the fault.

    Returns the number of such calls.
    """
    calls = 0

    def call(original, *args, **keywords):
        nonlocal calls
        if isinstance(args[0], int) or str(args[0]).startswith(str(store)):
            calls += 1
            if calls == n:
                fault(args[0])
        return original(*args, **keywords)

    for name in CALLS[fault]:
        module = fcntl if name == "flock" else os
        setattr(module, name, functools.partial(call, getattr(module, name)))
    function(*arguments)
    return calls


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def tear(descriptor):
    """Die in the middle of writing a file."""
    os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
    die(descriptor)


def fill_up(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CALLS = {die: ("mkdir", "open", "flock", "fsync", "replace", "unlink"), tear: ("fsync",),
         fill_up: ("mkdir", "open", "fsync", "replace")}


def own_mounts():
    """Mounts of this process's own, as root of a user namespace where it is not root."""
    user, group = os.geteuid(), os.getegid()
    system("unshare", NEWNS | (NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    system("mount", None, b"/", None, REC | PRIVATE, None)


def system(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, name) or getattr(libc, name)(*arguments):
        raise NotPossible(f"{name} is not possible here ({os.strerror(ctypes.get_errno())})")


def full_tmpfs(store, room):
    """A disk for the store. Returns functions: one fills it but for `room` bytes, one frees it."""
    own_mounts()
    system("mount", b"tmpfs", os.fsencode(store), b"tmpfs", 0, b"size=3m")
    ballast = store / "ballast"

    def fill():
        with open(ballast, "wb", buffering=0) as f, pytest.raises(OSError, match="No space left"):
            while True:
                f.write(bytes(4096))
        os.truncate(ballast, ballast.stat().st_size - room)

    return fill, ballast.unlink


def file_limit(store, room):
    """The same without a disk: no file may grow past `room` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    return (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard)),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))


def read_only_mount(store):
    own_mounts()
    system("mount", os.fsencode(store), os.fsencode(store), None, BIND, None)
    system("mount", None, os.fsencode(store), None, REMOUNT | BIND | RDONLY, None)


def no_permission(store):
    store.chmod(0o555)  # its lock files may still be opened
    if os.access(store, os.W_OK):
        raise NotPossible("root may write anywhere")


def jumping(function, *arguments):
    """Call a function while the clock jumps about, from before 1970 to after 2100."""
    chance = random.Random(0)
    time.time = lambda: chance.uniform(-1e9, 5e9)
    time.time_ns = lambda: int(1e9 * time.time())
    return function(*arguments)
