"""Several workers: real ones on the CPU, over the three runs of Table 1's smoke profile, or others in their place."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from helpers import Terminal, result

from lc import hours, results, study
from lc.__main__ import main
from lc.sweep import workers
from lc.training import TrainingError

COMMAND = ["sweep", "table1", "--profile", "smoke", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, a folder of logs, and a working directory from which `lc` cannot be imported."""
    monkeypatch.setattr(workers, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(workers, "PAUSE", 0.0)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(hours, "estimator", lambda device, folder: (lambda run: 60.0, "nothing"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def processes(monkeypatch):
    """The processes that `workers` starts."""
    started, start = [], workers._start

    def record(*arguments):
        worker = start(*arguments)
        started.append(worker)
        return worker

    monkeypatch.setattr(workers, "_start", record)
    return started


def numbers(folder):
    return {run_id: (row["train_loss"], row["accuracy"]) for run_id, row in results.load_rows(folder).items()}


def test_workers_train_each_run_once_as_one_process_would_and_a_killed_one_starts_again(store, tmp_path, processes, capsys,
                                                                                       monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = workers._start

    def killed_at_once(command, environment, log):
        worker = start(command, environment, log)
        if log.name == "worker-2.log" and len(processes) == 2:
            worker.kill()
        return worker

    monkeypatch.setattr(workers, "_start", killed_at_once)
    try:
        with contextlib.redirect_stderr(Terminal()) as terminal:
            main([*COMMAND, "--workers", "3", "--results", str(store)])
        main([*COMMAND, "--results", str(tmp_path / "alone")])
    finally:
        torch.set_num_threads(threads)
    logs = sorted((tmp_path / "logs").glob("*/*.log"))
    assert len(processes) == 4 and len(numbers(store)) == 3 and numbers(store) == numbers(tmp_path / "alone")
    counts = [int(re.search(r"trained (\d) runs", log.read_text())[1]) for log in logs]
    assert sum(counts) == 3 and max(counts) < 3
    out = capsys.readouterr().out
    assert f"worker-2 was killed by SIGKILL; log: {logs[1]}; it starts again" in out and "3 runs on " in out
    assert all(out.count(f"{run_id}: {accuracy:.2f} %, ") == 1 for run_id, (_, accuracy) in numbers(store).items())
    assert re.search(r" [12]/3 \[\d\d:\d\d<\d\d:\d\d", terminal.getvalue())


@pytest.fixture
def stand_in(monkeypatch):
    """Has Python run other code in the place of a worker's; returns what they were given: commands and environments."""
    given = []

    def replace(code):
        popen = subprocess.Popen

        def start(command, **options):
            given.append((command, options["env"]))
            return popen([sys.executable, "-c", code], **options)

        monkeypatch.setattr(workers.subprocess, "Popen", start)
        return given

    return replace


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_to_the_workers_which_are_waited_for(number, store, tmp_path, processes, stand_in, monkeypatch):
    stand_in("""
import signal, sys, time
def told(*_):
    time.sleep(0.3)
    sys.exit("saved")
signal.signal(signal.SIGUSR1, told)
print("ready", flush=True)
time.sleep(30)
""")
    sleep, sent = time.sleep, []

    def once_they_are_ready(seconds):
        sleep(seconds)
        logs = [log.read_text() for log in (tmp_path / "logs").glob("*/*.log")]
        if logs == ["ready\n"] * 2 and not sent:  # a second signal would end this process at once
            sent.append(number)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(workers.time, "sleep", once_they_are_ready)
    with pytest.raises(SystemExit, match="stopped by a signal; the same command continues from there"):
        main([*COMMAND, "--workers", "2", "--results", str(store)])
    assert [log.read_text() for log in (tmp_path / "logs").glob("*/*.log")] == ["ready\nsaved\n"] * 2
    assert [process.returncode for process in processes] == [1, 1]


def test_a_worker_whose_runs_fail_is_named_with_what_it_said(store, processes, stand_in):
    stand_in("import sys; print('some'); sys.exit('lc: out of memory')")
    with pytest.raises(TrainingError, match=r"worker-1 failed \(lc: out of memory\); log: .*worker-1.log; worker-2 failed"):
        workers.sweep(["table1"], "smoke", store, device="cpu", workers=2)
    assert len(processes) == 2


def test_a_worker_that_dies_of_its_gpu_is_named_and_starts_again_twice(store, processes, stand_in, capsys):
    stand_in("raise RuntimeError('CUDA error: an illegal memory access was encountered\\nCompile with `TORCH_USE_CUDA_DSA`.\\n')")
    with pytest.raises(TrainingError, match=r"worker-1 failed \(RuntimeError: CUDA error: an illegal memory access was "
                                            r"encountered\); log: .*; worker-2 failed"):
        workers.sweep(["table1"], "smoke", store, device="cpu", workers=2)
    assert len(processes) == 6 and capsys.readouterr().out.count("illegal memory access was encountered") == 4


@pytest.mark.parametrize("ignored", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN);"])
def test_nothing_waits_for_ever_for_a_worker_that_hangs(ignored, store, processes, stand_in, monkeypatch, capsys):
    monkeypatch.setattr(workers, "SILENCE", 1.0)
    monkeypatch.setattr(workers, "STARTS", 1)
    stand_in(f"import signal, time; {ignored} time.sleep(60)")
    with pytest.raises(TrainingError, match="worker-1 was killed by SIGKILL; log: .*; worker-2 was killed by SIGKILL"):
        workers.sweep(["table1"], "smoke", store, device="cpu", workers=2)
    assert "worker-1 has written nothing for 0 minutes and is killed" in capsys.readouterr().out
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 2


def test_a_worker_that_ignores_the_end_is_killed(store, processes, stand_in, monkeypatch):
    monkeypatch.setattr(workers, "GRACE", 0.5)
    stand_in("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    store.mkdir()

    def damage():
        time.sleep(1.0)  # until they ignore it
        (store / "runs.csv").write_text("damaged\n")

    with pytest.raises(results.ResultsError):
        workers.sweep(["table1"], "smoke", store, device="cpu", workers=2, stop=damage)
    assert {process.wait() for process in processes} <= {-signal.SIGKILL, -signal.SIGTERM}


def test_no_worker_is_left_behind_by_an_error(store, processes, stand_in):
    stand_in("import time; time.sleep(30)")
    store.mkdir()

    def damage():
        (store / "runs.csv").write_text("damaged\n")

    with pytest.raises(results.ResultsError):
        workers.sweep(["table1"], "smoke", store, device="cpu", workers=2, stop=damage)
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: types.SimpleNamespace(name="NVIDIA H200", uuid=f"abc-{i}"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_each_gpu_has_a_worker(three_gpus, store, stand_in, capsys):
    given = stand_in("")
    assert workers.sweep(["table1"], "smoke", store, data_dir="data", fuse=True, time_limit=5, unfolded=False) == []
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in given] == ["GPU-abc-0", "GPU-abc-1", "GPU-abc-2"]
    command = " ".join(given[0][0][1:])
    assert command == (f"-m lc sweep table1 --profile smoke --workers 1 --device cuda --precision auto --data-dir data "
                       f"--results {store} --fuse --time-limit 5")
    assert "3 runs on 3 x NVIDIA H200: about 1 min, estimated from nothing.\n3 workers; " in capsys.readouterr().out


def gpus(*arguments):
    return [environment["CUDA_VISIBLE_DEVICES"] for environment in workers.worker_environments(*arguments)]


@pytest.mark.parametrize("visible", ["", "3,5,0", " 0, 2 ,1", "GPU-abc,GPU-def,GPU-0"])
def test_gpus_are_dealt_in_turn_by_their_uuids(visible, three_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    zero, one, two = "GPU-abc-0", "GPU-abc-1", "GPU-abc-2"
    assert gpus() == [zero, one, two] and gpus("cuda", 2) == [zero, one] and gpus("auto", 5) == [zero, one, two, zero, one]
    assert gpus("cuda:1") == [one] and gpus("cuda:2", 2) == [two, two]


@pytest.mark.parametrize("visible, name", [("MIG-1/2/0,MIG-3", "MIG-1/2/0"), ("3", "3"), (None, "0")])
def test_a_part_of_a_gpu_keeps_its_name(visible, name, three_gpus, monkeypatch):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: types.SimpleNamespace(name="H200 MIG 1g.18gb", uuid="abc"))
    assert gpus() == [name] and gpus("auto", 2) == [name] * 2


def test_a_cpus_threads_are_shared(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert workers.worker_environments("cpu") == [{"OMP_NUM_THREADS": "8"}]
    assert workers.worker_environments("cpu", 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert workers.worker_environments("cpu", 9) == [{"OMP_NUM_THREADS": "1"}] * 9


@pytest.mark.parametrize("options, message", [
    (dict(workers=0), "workers must be an integer of at least 1, not 0"), (dict(device="gpu"), "unknown device"),
    (dict(precision="fp64"), "unknown precision"), (dict(device="cpu", precision="fp64", workers=2), "unknown precision"),
    (dict(profile="papr"), "unknown profile"),
])
def test_everything_is_checked_before_a_worker_starts(options, message, store, processes):
    with pytest.raises(ValueError, match=message):
        workers.sweep(["table1"], **dict(profile="smoke", folder=store) | options)
    assert not processes


def test_one_run_alone_needs_no_worker(store, processes, monkeypatch):
    runs = study.table1("smoke")
    monkeypatch.setattr(study, "everything", lambda *_: runs[:1])
    monkeypatch.setattr(study, "train_missing", lambda missing, *_, **__: [run.id for run in missing])
    assert workers.sweep(["table1"], "smoke", store, device="cpu", workers=2) == [runs[0].id] and not processes


def test_the_parts_of_all_shards_are_disjoint_and_together_all_runs():
    runs = study.everything("smoke")
    for count in (1, 2, 3, 7, len(runs), len(runs) + 1):
        parts = [workers.part(runs, f"{i}/{count}") for i in range(1, count + 1)]
        assert sorted(run.id for part in parts for run in part) == sorted(run.id for run in runs)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert workers.part(runs, None) == runs


@pytest.mark.parametrize("shard", ["0/4", "5/4", "a", "", "1", "1/", "1/0", "-1/4", "1/4/2", "1.0/4", " 1/4", "1/4\n", 1])
def test_a_bad_shard_is_an_error_before_anything_is_trained(shard, store, processes):
    with pytest.raises(ValueError, match="a shard is I/N with I from 1 to N, such as 1/4, not"):
        workers.sweep(["table1"], "smoke", store, device="cpu", shard=shard)
    assert not processes and not store.exists()


def test_each_worker_is_told_the_shard_and_the_seeds(three_gpus, store, stand_in):
    given = stand_in("")
    assert workers.sweep(["table1"], "smoke", store, seeds=[5, 6], shard="2/2") == []
    assert len(given) == 3 and all(" ".join(command).endswith(" --seeds 5 6") for command, _ in given)
    assert all("--shard 2/2 --workers 1" in " ".join(command) for command, _ in given)


@pytest.fixture
def instant(monkeypatch):
    """Runs end at once, if this process trains them."""
    monkeypatch.setattr(study, "train_run", lambda run, **_: result(
        run.seed, id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen))


def test_shards_in_folders_of_their_own_merge_into_the_whole_sweep(instant, store, tmp_path, capsys):
    ids, merged = {run.id for run in study.table1("smoke")}, tmp_path / "merged"
    for shard, there in (("1/2", 2), ("2/2", 1)):
        main([*COMMAND, "--shard", shard, "--results", str(tmp_path / shard[0])])
        assert f"trained {there} runs" in capsys.readouterr().out and len(results.load_rows(tmp_path / shard[0])) == there
    for shard in "12":
        main(["merge", str(tmp_path / shard), "--results", str(merged)])
    assert set(results.load_rows(merged)) == ids


def test_a_sweep_of_a_seed_trains_exactly_this_seed(instant, store):
    main([*COMMAND, "--results", str(store), "--seeds", "5"])
    assert set(results.load_rows(store)) == {run.id.replace("seed0", "seed5") for run in study.table1("smoke")}


@pytest.mark.slow
def test_a_process_of_its_own_says_how_long_they_take(store, stand_in, monkeypatch, capfd):
    stand_in("")
    monkeypatch.setattr(workers, "ProcessPoolExecutor", ProcessPoolExecutor)
    assert workers.sweep(["table1"], "smoke", store, device="cpu", workers=2) == []
    assert re.search(r"3 runs on .*: about 1 min, estimated from ten steps of ResNet-8-16 just now", capfd.readouterr().out)


@pytest.mark.slow
def test_two_workers_train_exactly_the_seed_and_the_shard(store):
    main([*COMMAND, "--workers", "2", "--results", str(store), "--seeds", "5", "--shard", "1/2"])
    assert set(results.load_rows(store)) == {run.id.replace("seed0", "seed5") for run in study.table1("smoke")[::2]}
