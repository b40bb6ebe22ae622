"""Several workers: real ones on the CPU, over the runs of Table 1's smoke profile, or none."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers import at_once, result_of

from lc import commands, hours, results, study
from lc.__main__ import main
from lc.run import TrainingError
from lc.sweep import workers
from lc.utils.files import ROOT
from lc.utils.fresh_process import in_fresh_process

COMMAND = ["sweep", "table1", "--profile", "smoke", "--device", "cpu", "--precision", "fp32"]
OPTIONS = dict(device="cpu", precision="fp32")
RUNS = study.table1("smoke")


@pytest.fixture
def store(store, tmp_path, monkeypatch):
    """An empty store, and a working directory from which `lc` cannot be imported."""
    monkeypatch.setattr(hours, "estimator", lambda device: (lambda run: 60.0, "nothing"))
    monkeypatch.chdir(tmp_path)
    return store


@pytest.fixture
def none_starts(monkeypatch):
    monkeypatch.setattr(workers, "_train_with", lambda *_, **__: pytest.fail("it started"))


def numbers(folder):
    return {run_id: (row["train_loss"], row["accuracy"])
            for run_id, row in results.load_rows(folder).items()}


@pytest.mark.slow
def test_workers_train_each_run_once_as_one_process_would_with_one_estimate(
        store, tmp_path, capfd):
    threads, command = torch.get_num_threads(), [*COMMAND, "--shard", "1/2"]
    torch.set_num_threads(2)  # one for each worker
    try:
        main([*command, "--workers", "2", "--results", str(store)])
        torch.set_num_threads(1)
        out, log = capfd.readouterr()
        main([*command, "--results", str(tmp_path / "alone")])
    finally:
        torch.set_num_threads(threads)
    assert len(numbers(store)) == 2 and numbers(store) == numbers(tmp_path / "alone")
    assert re.fullmatch(r"2 runs on .*, by 2 workers: about 1 min, .*\n"
                        r"trained 2 runs in .*\n", out)
    logged = re.findall(r"run \d of 2: (\S+); the last ends at about 20", log)
    assert sorted(logged) == sorted(run.id for run in RUNS[::2])


@pytest.mark.slow
def test_what_failed_is_named_at_the_end_and_costs_no_other_run(store, monkeypatch):
    def one_dies(*call, environment, **options):
        if environment == {"first": "1"} and call[0] is study.train_missing:
            call, options = (signal.raise_signal, signal.SIGKILL), {}
        return in_fresh_process(*call, environment=environment, **options)

    damaged = results.checkpoint_path(RUNS[1].id, store)
    damaged.parent.mkdir(parents=True)
    damaged.write_text("no checkpoint")
    monkeypatch.setattr(workers, "worker_environments", lambda *_: [{"first": "1"}, {}])
    monkeypatch.setattr(workers, "in_fresh_process", one_dies)
    message = rf"worker 1: .*status -9.*worker 2: .*{RUNS[1].seed}.pt: damaged"
    with pytest.raises(TrainingError, match=message):
        workers.sweep(["table1"], "smoke", workers=2, **OPTIONS)
    assert set(numbers(store)) == {RUNS[0].id, RUNS[2].id}


@pytest.fixture
def two_workers(store):
    """A sweep whose two workers train."""
    command = [sys.executable, "-m", "lc", *COMMAND, "--workers", "2", "--results", store]
    with subprocess.Popen(command, cwd=ROOT) as sweep:
        while sweep.poll() is None and len(list(store.glob(".claims/*"))) < 2:
            time.sleep(0.1)
        yield sweep


@pytest.mark.slow
def test_workers_that_are_told_to_stop_leave_checkpoints_though_they_are_told_twice(
        store, two_workers):
    first, _ = [child for path in Path(f"/proc/{two_workers.pid}/task").glob("*/children")
                for child in path.read_text().split()]
    for process in (first, two_workers.pid):  # Slurm signals all processes of a task
        os.kill(int(process), signal.SIGTERM)
    assert two_workers.wait() == 1 and not numbers(store)
    assert len([*store.glob(".checkpoints/**/*.pt")]) == 2


@pytest.mark.slow
def test_workers_leave_checkpoints_if_their_sweep_is_killed(store, two_workers):
    two_workers.kill()
    deadline = time.monotonic() + 60  # a checkpoint is written every two minutes, or at the end
    while len([*store.glob(".checkpoints/**/*.pt")]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not numbers(store)


def test_a_signal_to_the_command_stops_it(store, monkeypatch):
    def signalled(environments, stop, *_, **__):
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        return [] if stop() else pytest.fail("not told")

    monkeypatch.setattr(workers, "in_fresh_process", lambda *_, **__: [1.0] * 3)  # announces
    monkeypatch.setattr(workers, "_train_with", signalled)
    with pytest.raises(SystemExit, match="stopped by a signal"):
        main([*COMMAND, "--workers", "2", "--results", str(store)])


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_second_interruption_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(commands, "run_sweep", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as end:
        main(["sweep"])
    assert end.value.code == 130 and capsys.readouterr().err == "lc: interrupted\n"


def test_each_gpu_has_a_worker_and_one_process_apart_estimates_the_hours(
        three_gpus, store, monkeypatch):
    estimate, train = mock.Mock(return_value=[1.0] * 3), mock.Mock(return_value=[])
    monkeypatch.setattr(workers, "in_fresh_process", estimate)
    monkeypatch.setattr(workers, "_train_with", train)
    options = dict(fuse=True, together=2, time_limit=5, data_dir="data")
    assert workers.sweep(["table1"], "smoke", **options) == []
    estimate.assert_called_once_with(hours.announce, RUNS, torch.device("cuda"), 3, 3,
                                     environment={"CUDA_VISIBLE_DEVICES": "0"})
    train.assert_called_once_with(
        [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "012"], None, RUNS,
        **options, expected=[1.0] * 3, device="cuda", precision="auto", progress=False)


def gpus(*arguments):
    environments = workers.worker_environments(*arguments)
    return [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]


@pytest.mark.parametrize("visible, names", [
    ("", "012"), (" 3, 5 ,0", "350"), ("GPU-a,MIG-b,GPU-c", ["GPU-a", "MIG-b", "GPU-c"])])
def test_gpus_are_dealt_in_turn_by_the_names_that_are_visible(
        visible, names, three_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    zero, one, two = names
    assert gpus() == [zero, one, two] and gpus("cuda", 2) == [zero, one]
    assert gpus("auto", 5) == [zero, one, two, zero, one]
    assert gpus("cuda:1") == [one] and gpus("cuda:2", 2) == [two, two]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # of several MIG parts, one
    assert gpus() == [zero] and gpus("auto", 2) == [zero, zero]


def test_a_cpus_threads_are_shared(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for count, threads in ((None, "8"), (3, "2"), (9, "1")):
        expected = [{"OMP_NUM_THREADS": threads}] * (count or 1)
        assert workers.worker_environments("cpu", count) == expected


@pytest.mark.parametrize("options, message", [
    (dict(workers=0), "workers"), (dict(device="gpu"), "device"),
    (dict(together=0, workers=2), "together"), (dict(precision="fp64"), "precision"),
    (dict(precision="fp64", workers=2), "precision"),
    *((dict(shard=shard), "shard") for shard in ("0/4", "5/4", "1/4\n")),
])
def test_everything_is_checked_before_a_worker_starts(options, message, store, none_starts):
    with pytest.raises(ValueError, match=message):
        workers.sweep(["table1"], **dict(profile="smoke", device="cpu") | options)
    assert not store.exists()


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_the_parts_of_all_shards_are_disjoint_and_together_all_runs(count):
    runs = study.everything()
    parts = [workers.part(runs, f"{i}/{count}") for i in range(1, count + 1)]
    assert sorted((run for part in parts for run in part), key=runs.index) == runs
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_in_folders_of_their_own_merge_into_the_whole_sweep(
        none_starts, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "stepwise_run", at_once(lambda run, **_: result_of(run)))
    ids, merged = {run.id for run in RUNS}, tmp_path / "merged"
    for shard, there in (("1/2", 2), ("2/2", 1)):
        # one run alone needs no worker
        main([*COMMAND, "--shard", shard, "--workers", str(3 - there), "--results",
              str(tmp_path / shard[0])])
        assert f"trained {there} runs" in capsys.readouterr().out
        assert len(results.load_rows(tmp_path / shard[0])) == there
    for shard in "12":
        main(["merge", str(tmp_path / shard), "--results", str(merged)])
    assert set(results.load_rows(merged)) == ids
    main([*COMMAND, "--seeds", "5", "--results", str(store)])
    assert set(results.load_rows(store)) == {each.replace("seed0", "seed5") for each in ids}
