"""Faults: kills, and disks that fill up or are read-only: the store ends as without them.

The sweeps are processes forked from one that has imported PyTorch and trained once, so an attempt
costs a tenth of a second.
"""

import errno
import fcntl
import functools
import gc
import multiprocessing
import os
import resource
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from helpers import result

import lc
from lc import results, study
from lc.utils import checkpoint

RECIPE = lc.Recipe("faults", epochs=2, batch_size=8, train_images=16, test_images=8)  # 4 steps
RUNS = [lc.Run("ResNet-LC-8-4x1", "digits", frozen, seed, RECIPE)
        for seed in range(2) for frozen in (False, True)]
FORK = multiprocessing.get_context("fork")
SPENT = {"seconds", "setup_seconds", "images_per_second"}  # these differ from time to time


def warm_up(reference):
    """An uninterrupted sweep. It leaves this process with what its children need, and no thread."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    checkpoint.INTERVAL = -1.0  # after every step
    results.append = functools.partial(append_once, results.append)
    sweep(RUNS, reference)
    gc.disable()  # a collection would write to every page, and so copy it in each child


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return tmp_path_factory.mktemp("reference") / "store"


@pytest.fixture(scope="module")
def nursery(reference):
    """Calls a function in the process that forks."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, warm_up, (reference,)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def sweep(runs, store, **options):
    os.environ["LC_RESULTS_DIR"] = str(store)
    return study.train_missing(runs, device="cpu", precision="fp32", **options)


def append_once(append, result):
    """`results.append` that no run may reach twice."""
    assert result.id not in results.load_rows(), f"{result.id} was trained again"
    append(result)


def last_word(function, *arguments):
    """What a function returns in a child, or its error as text; None if it is killed."""
    with ProcessPoolExecutor(1, FORK) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (lc.ResultsError, lc.TrainingError) as error:
            return str(error)
        except BrokenProcessPool:
            return None


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


def bits(run_id, store):
    return {name: (array.dtype, array.shape, array.tobytes())
            for name, array in results.load_arrays(run_id, store).items()}


def files(store):
    return [path for path in store.rglob("*") if path.is_file()]


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


def two_at_once(store):
    with ProcessPoolExecutor(2, FORK) as pool:
        sweeps = [pool.submit(sweep, RUNS, store) for _ in range(2)]
        return sum((each.result() for each in sweeps), [])


def test_two_sweeps_at_once_train_each_run_once(nursery, reference, tmp_path):
    assert sorted(nursery(two_at_once, tmp_path)) == sorted(run.id for run in RUNS)
    check(tmp_path, reference)


def one_row(folder):
    """A store of the first run."""
    last_word(sweep, RUNS[:1], folder / "base")
    return folder / "base"


def fault_at(folder, reference, fault, calls):
    """A sweep that meets the fault at some calls in turn, each time with a new store, and goes on.

    Returns the last words; the last one is the number of calls, where `calls` go so far.
    """
    base, words = one_row(folder), []
    for n in calls:
        store = shutil.copytree(base, folder / str(n))
        words.append(last_word(faulty, n, fault, store, sweep, RUNS[:2], store))
        assert {RUNS[0].id} <= set(results.load_rows(store)) <= {run.id for run in RUNS[:2]}
        # its row is written, its checkpoint still there
        at_the_end = words[-1] is None and RUNS[1].id in results.load_rows(store)
        left = [results.checkpoint_path(RUNS[1].id, store)] * at_the_end
        last_word(sweep, RUNS[:2], store)
        check(store, reference, RUNS[:2], but=left)
        if isinstance(words[-1], int) and words[-1] < n:  # there is no such call any more
            break
    return words


def slowly(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize("fault, calls, least", [
    (die, (10, 19, 25), 3), slowly(die, range(1, 99), 25), slowly(tear, range(1, 99), 6),
    (fill_up, (5, 13), 1), slowly(fill_up, range(1, 99), 6)])
def test_a_fault_at_calls_that_change_a_file_leaves_a_whole_store(
        fault, calls, least, nursery, reference, tmp_path):
    """A full disk costs at most a checkpoint, or is said in one line."""
    words = nursery(fault_at, tmp_path, reference, fault, calls)
    ends = [each for each in words if not isinstance(each, int)]
    assert len(ends) >= least and (fault is fill_up or len(ends) >= len(words) - 1)
    for end in ends:
        said = fault is fill_up and "No space left on device" in end and "\n" not in end
        assert said or fault is not fill_up and end is None


def refuse(path, *_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def untrained(fault, store):
    """A sweep with a fault from its start, in which nothing may be trained."""
    study.stepwise_run = None
    if fault == "read-only":
        os.open = os.mkdir = refuse
        assert sweep(RUNS[:1], store) == []  # nothing is missing: nothing to write
    else:  # no file may grow past so many bytes
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    return sweep(RUNS, store)


@pytest.mark.parametrize("fault, reason", [
    ("read-only", "Read-only file system"), ("full", "File too large")])
def test_a_disk_that_cannot_be_written_is_said_before_any_training(
        fault, reason, nursery, tmp_path):
    store = nursery(one_row, tmp_path)
    said = nursery(last_word, untrained, fault, store)
    assert said.startswith(f"{store} cannot be written: {reason}")


def test_a_folder_below_one_that_may_not_be_entered_is_named(tmp_path):
    with pytest.raises(lc.ResultsError, match=f"{tmp_path} cannot be written: Permission denied"):
        with results._disk(tmp_path):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x" / "y"))


def test_where_the_kernel_has_no_locks_nothing_is_written(monkeypatch, tmp_path):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    for use in (lambda: results.append(result(), tmp_path),
                results.claim(result().id, tmp_path).__enter__):
        with pytest.raises(lc.ResultsError, match="file system has no locks"):
            use()
    assert {path.suffix for path in files(tmp_path)} <= {".lock"}
