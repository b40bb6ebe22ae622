"""Faults: kills, disks that are full or read-only, clocks that jump: the store ends as without.

The sweeps are processes forked from one that has imported PyTorch and trained once, so an attempt
costs a tenth of a second.
"""

import errno
import fcntl
import itertools
import multiprocessing
import os
import random
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import faults
import pytest
from faults import RUNS, check, faulty, files, last_word, log, start, sweep, word
from helpers import result

import lc
from lc import results


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return tmp_path_factory.mktemp("reference") / "store"


@pytest.fixture(scope="module")
def nursery(reference):
    """Calls a function in the process that forks."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, faults.warm_up, (reference,)) as pool:
        def call(function, *arguments):
            try:
                return pool.submit(function, *arguments).result()
            except faults.NotPossible as error:
                pytest.skip(str(error))

        yield call


def two_at_once(store, reference):
    words = [word(child) for child in [start(sweep, RUNS, store) for _ in range(2)]]
    assert sorted(sum(words, [])) == sorted(run.id for run in RUNS)
    check(store, reference)
    assert log(store).read_text().count("\n") == len(RUNS)


def test_two_sweeps_at_once_train_each_run_once(nursery, reference, tmp_path):
    nursery(two_at_once, tmp_path / "store", reference)


def one_row(folder):
    """A store of the first run."""
    word(start(sweep, RUNS[:1], folder / "base"))
    return folder / "base"


def copy(base, store):
    shutil.copytree(base, store)
    shutil.copy(log(base), log(store))
    return store


def fault_at(folder, reference, fault, calls):
    """A sweep that meets the fault at some calls in turn, each time with a new store, and goes on.

    Returns the last words; the last one is the number of calls, where `calls` go so far.
    """
    base, words = one_row(folder), []
    for n in calls:
        store = copy(base, folder / str(n))
        words.append(word(start(faulty, n, fault, store, sweep, RUNS[:2], store)))
        assert {RUNS[0].id} <= set(results.load_rows(store)) <= {run.id for run in RUNS[:2]}
        # its row is written, its checkpoint still there
        at_the_end = words[-1] is None and RUNS[1].id in results.load_rows(store)
        left = [results.checkpoint_path(RUNS[1].id, store)] * at_the_end
        word(start(sweep, RUNS[:2], store))
        check(store, reference, RUNS[:2], but=left)
        if isinstance(words[-1], int) and words[-1] < n:  # there is no such call any more
            break
    return words


def test_a_kill_at_some_calls_that_change_a_file_leaves_a_whole_store(
        nursery, reference, tmp_path):
    assert nursery(fault_at, tmp_path, reference, faults.die, (9, 18, 24)) == [None] * 3


@pytest.mark.slow
@pytest.mark.parametrize("fault, least", [
    (faults.die, 25), (faults.tear, 6)])  # four checkpoints, the arrays, the rows
def test_a_kill_at_any_call_that_changes_a_file_leaves_a_whole_store(
        fault, least, nursery, reference, tmp_path):
    *killed, calls = nursery(fault_at, tmp_path, reference, fault, range(1, 99))
    assert set(killed) == {None} and calls == len(killed) >= least


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_call_costs_at_most_a_checkpoint_or_is_said_in_one_line(
        nursery, reference, tmp_path):
    words = nursery(fault_at, tmp_path, reference, faults.fill_up, range(1, 99))
    said = [text for text in words if isinstance(text, str)]
    assert None not in words and len(said) > 5 and len(words) - len(said) > 10
    assert all("No space left on device" in text and "\n" not in text for text in said)


def fills_while_training(disk, room, store, out):
    """A sweep whose disk fills up at its first step, and once more on a free disk; copied out."""
    store.mkdir()
    fill, free = disk(store, room)
    said, asked = "", itertools.count(1)  # first before the run begins, then after each step
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            sweep(RUNS[:2], store, stop=lambda: next(asked) == 2 and fill())
        except lc.ResultsError as error:
            said = str(error)
    assert set(results.load_rows(store)) <= {run.id for run in RUNS[:2]}
    assert not [path for path in files(store) if path.suffix == ".partial"]
    unwritten = sum("no checkpoint could be written" in str(w.message) for w in warned)
    assert room > 0 or unwritten == 4
    free()
    sweep(RUNS[:2], store)
    shutil.copytree(store, out)
    shutil.copy(log(store), log(out))
    return said


def full_disks(disk, rooms, folder, reference):
    said = []
    for room in rooms:
        store, out = folder / str(room), folder / f"out{room}"
        said.append(word(start(fills_while_training, disk, room, store, out)))
        check(out, reference, RUNS[:2])
    return said


@pytest.mark.parametrize("disk, rooms, reason", [
    (faults.full_tmpfs, (0, 8192, 65536), "No space left on device"),
    (faults.file_limit, (0, 600, 3000), "File too large"),
])
def test_a_disk_that_fills_up_is_said_in_one_line_and_once_freed_the_sweep_goes_on(
        disk, rooms, reason, nursery, reference, tmp_path):
    first, *_ = nursery(full_disks, disk, rooms, tmp_path, reference)
    assert first.startswith(f"{tmp_path / '0'} cannot be written: {reason}") and "\n" not in first


def sweep_read_only(protect, store):
    protect(store)
    lc.study.stepwise_run = None  # is not called
    assert sweep(RUNS[:1], store) == []  # nothing is missing: nothing to write
    return sweep(RUNS, store)


def read_only(protect, folder):
    store = copy(one_row(folder), folder / "store")
    return word(start(sweep_read_only, protect, store))


@pytest.mark.parametrize("protect, reason", [
    (faults.read_only_mount, "Read-only file system"), (faults.no_permission, "Permission denied"),
])
def test_a_read_only_store_is_said_before_any_training(protect, reason, nursery, tmp_path):
    said = nursery(read_only, protect, tmp_path)
    assert said.startswith(f"{tmp_path / 'store'} cannot be written: {reason}")


def no_room(store):
    faults.full_tmpfs(store, 65536)[0]()
    lc.study.stepwise_run = None
    return sweep(RUNS, store)


def test_a_disk_that_is_full_is_said_before_any_training(nursery, tmp_path):
    said = nursery(last_word, no_room, tmp_path)
    assert "cannot be written: No space left on device" in said


def clocks_jump(folder, reference):
    """A sweep under a clock that jumps, killed at some calls, its files of the past and future."""
    store, chance = copy(one_row(folder), folder / "store"), random.Random(0)
    for n in (6, 16, 20, 24, 0):
        for path in files(store):
            os.utime(path, chance.choice([(0, 0), (5e9, 5e9)]))
        word(start(faults.jumping, faulty, n, faults.die, store, sweep, RUNS[:2], store))
    check(store, reference, RUNS[:2])


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(nursery, reference, tmp_path):
    nursery(clocks_jump, tmp_path, reference)


def hold(run_id, store):
    with results.claim(run_id, store), results._writing(store):
        (store / "held").touch()
        time.sleep(600)


def dead_holder(store):
    """A process is killed that holds a run's claim and the store's lock, which are the kernel's."""
    child = start(hold, RUNS[0].id, store)
    while not (store / "held").exists():
        time.sleep(0.01)
    with open(store / "runs.csv.lock") as f:
        with pytest.raises(BlockingIOError):
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with results.claim(RUNS[0].id, store) as mine:
            assert not mine
        child.kill()
        assert word(child) is None
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(last_word(sweep, RUNS[:1], store)) == 1


def test_locks_end_with_the_process_that_holds_them(nursery, tmp_path):
    nursery(dead_holder, tmp_path)


def test_where_the_kernel_has_no_locks_nothing_is_written(monkeypatch, tmp_path):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(lc.ResultsError, match="file system has no locks"):
        results.append(result(), tmp_path)
    with pytest.raises(lc.ResultsError, match="file system has no locks"):
        results.claim(result().id, tmp_path).__enter__()
    assert {path.suffix for path in files(tmp_path)} <= {".lock"}
