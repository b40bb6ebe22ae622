"""scripts/sweep.sbatch: with stand-ins for Slurm's commands, and as jobs where a Slurm runs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lc import results, study
from lc.__main__ import main
from lc.utils.files import ROOT

SCRIPT = "scripts/sweep.sbatch"
SWEEP = ["figure6a", "--profile", "smoke", "--device", "cpu"]  # four runs on the digits
RUNS = study.everything("smoke", ["figure6a"])
# Columns that differ from time to time
MEASURED = {"seconds", "setup_seconds", "images_per_second", "device", "git"}


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


# On another machine's Slurm, the nodes would not see the folders of these tests.
HERE = output("sinfo", "--noheader", "--Node", "--format=%N").split()
real = pytest.mark.skipif(set(HERE) != {socket.gethostname().split(".")[0]},
                          reason="no Slurm of one node here: see docs/cluster.md")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty results folder, and an environment in which the script uses it."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "results"


@pytest.mark.parametrize("sent, state, restarts, requeued", [
    ("USR1", "RUNNING", "0", True), ("TERM", "RUNNING", "3", True),
    ("TERM", "COMPLETING", "0", False),  # the task was cancelled, or Slurm requeues it itself
    ("USR1", "RUNNING", "20", False),
    (None, "RUNNING", "0", False),  # a run failed
])
def test_a_task_goes_back_to_the_queue_only_if_it_was_stopped_and_slurm_does_not_see_to_it(
        store, tmp_path, monkeypatch, sent, state, restarts, requeued):
    python = """echo "$*" >> calls
        [ "$3" = merge ] && exit
        trap "sleep 0.5; echo checkpoint >> calls; exit 1" USR1
        touch training
        """ + ("while true; do sleep 0.1; done" if sent else "exit 1")
    for name, code in {"squeue": f"echo {state}", "scontrol": 'echo "scontrol $*" >> calls',
                       "python": python}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    for name, value in {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python",
            "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4",
            "SLURM_RESTART_COUNT": restarts}.items():
        monkeypatch.setenv(name, value)
    store.mkdir()
    (store / "runs.csv").touch()
    with subprocess.Popen(["bash", ROOT / SCRIPT, "figure4", "--fuse"], cwd=tmp_path) as script:
        wait_for((tmp_path / "training").exists)
        if sent:
            script.send_signal(signal.Signals[f"SIG{sent}"])
    shard = store / ".shards" / "shard-2"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"-m lc merge {store} --results {shard}",
        f"-m lc sweep figure4 --fuse --results {shard} --shard 2/4",
        *["checkpoint"] * bool(sent), *["scontrol requeue 7_2"] * requeued]
    assert script.returncode == 1


def wait_for(what, seconds=300):
    for _ in range(10 * seconds):
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError


class Task:
    """The only task of an array that was submitted as a user does it."""

    def __init__(self, tmp_path, *options, arguments=SWEEP):
        self.array = submit(tmp_path, "--array=1", *options, arguments=arguments)
        self.name, self.log = f"{self.array}_1", tmp_path / "1.log"
        self.shard = tmp_path / "results" / ".shards" / "shard-1"

    def shows(self, field):
        return re.search(rf"\b{field}=(\S*)", output("scontrol", "show", "job", self.name))[1]

    def pause_in_mid_run(self):
        """Waits until a run is being trained, and stops its process. Returns the process's id."""
        wait_for(lambda: list(self.shard.glob(".claims/*")))
        process = next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline")
                       if str(self.shard) in text(path))
        os.kill(process, signal.SIGSTOP)
        return process

    def go_on_once_it_is_told_to_stop(self, process):
        wait_for(lambda: "lc is told to stop" in text(self.log))
        os.kill(process, signal.SIGCONT)

    def stopped_at(self):
        """The epochs and mini-batches that are done by the checkpoint of the first run."""
        path = results.checkpoint_path(RUNS[0].id, self.shard)
        wait_for(path.exists)
        return tuple(torch.load(path, weights_only=True)["state"]["trainer"]["done"])


def text(path):
    try:
        return path.read_text(errors="replace")
    except OSError:  # a process that has ended, or a log that is not there yet
        return ""


def submit(tmp_path, *options, arguments=SWEEP):
    """Submits the script. Returns the array's id."""
    command = ["sbatch", "--parsable", "--gpus=0", "--cpus-per-task=1",
               f"--output={tmp_path}/%a.log", *options, SCRIPT, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def wait_for_array(array):
    def states():
        return set(output("squeue", "--noheader", "--array", "--states=all", f"--jobs={array}",
                          "--format=%T").split())

    unfinished = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED"}
    wait_for(lambda: states() and not states() & unfinished, 900)
    return states()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The results of a sweep without Slurm."""
    folder = tmp_path_factory.mktemp("plain")
    subprocess.run([sys.executable, "-m", "lc", "sweep", *SWEEP, "--results", folder], check=True,
                   cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def assert_same_after_merge(store, plain):
    """Compares the rows, and the arrays of the trained filters to the last bit."""
    for shard in sorted(store.glob(".shards/*")):
        main(["merge", str(shard), "--results", str(store)])
    ours, theirs = results.load_rows(store), results.load_rows(plain)
    assert set(ours) == set(theirs) == {run.id for run in RUNS}
    for run_id, row in theirs.items():
        for column in set(row) - MEASURED:
            assert repr(ours[run_id][column]) == repr(row[column]), column
        arrays, expected = results.load_arrays(run_id, store), results.load_arrays(run_id, plain)
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in expected.items()}


@real
@pytest.mark.slurm
def test_an_array_gives_the_rows_of_a_plain_sweep_and_another_array_trains_none_again(
        store, plain, tmp_path):
    assert wait_for_array(submit(tmp_path, "--array=1-4")) == {"COMPLETED"}
    assert [len(results.load_rows(shard)) for shard in store.glob(".shards/*")] == [1, 1, 1, 1]
    assert_same_after_merge(store, plain)
    shutil.rmtree(store / ".shards")
    assert wait_for_array(submit(tmp_path, "--array=1-2")) == {"COMPLETED"}
    assert all("trained 0 runs" in (tmp_path / f"{i}.log").read_text() for i in (1, 2))


def near_its_time_limit(task):
    """Nothing to do: the task's time limit is a minute."""


def signalled(task):
    subprocess.run(["scancel", "--batch", "--signal=USR1", task.name], check=True)


def requeued(task):
    subprocess.run(["scontrol", "requeue", task.name], check=True)


def preempted(task):
    """A job of a partition that comes first takes the node."""
    if "urgent" not in output("sinfo", "--noheader", "--format=%R").split():
        pytest.skip("no partition that preempts: see scripts/slurm-localhost.sh")
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null",
                    "--wrap=sleep 5"], check=True)


@real
@pytest.mark.slurm
@pytest.mark.parametrize("interrupt, options", [
    (near_its_time_limit, ["--time=1", "--signal=B:USR1@30"]), (signalled, []), (requeued, []),
    (preempted, [])])
def test_a_task_that_is_interrupted_in_mid_run_continues_and_gives_the_same_bits(
        store, plain, tmp_path, interrupt, options):
    task = Task(tmp_path, *options)
    process = task.pause_in_mid_run()
    interrupt(task)
    task.go_on_once_it_is_told_to_stop(process)
    assert (0, 0) < task.stopped_at() < (RUNS[0].recipe.epochs, 0)
    wait_for(lambda: task.shows("JobState") == "PENDING")
    if interrupt is near_its_time_limit:  # once is enough, even on a slow machine
        subprocess.run(["scontrol", "update", f"JobId={task.name}", "TimeLimit=60"], check=True)
    assert wait_for_array(task.array) == {"COMPLETED"}
    assert task.shows("Restarts") == "1"
    assert_same_after_merge(store, plain)


@real
@pytest.mark.slurm
def test_a_task_that_is_cancelled_stays_so_and_keeps_its_checkpoint(store, tmp_path):
    task = Task(tmp_path)
    process = task.pause_in_mid_run()
    subprocess.run(["scancel", task.name], check=True)
    task.go_on_once_it_is_told_to_stop(process)
    assert (0, 0) < task.stopped_at() < (RUNS[0].recipe.epochs, 0)
    assert wait_for_array(task.array) == {"CANCELLED"}
    time.sleep(5)
    assert task.shows("JobState") == "CANCELLED" and task.shows("Restarts") == "0"


@real
@pytest.mark.slurm
def test_a_task_that_fails_says_why_in_its_log_and_does_not_go_back_to_the_queue(store, tmp_path):
    task = Task(tmp_path, arguments=["figure5", "--profile", "smoke"])
    assert wait_for_array(task.array) == {"FAILED"} and task.shows("Restarts") == "0"
    assert "lc: unknown experiment 'figure5'" in task.log.read_text()


def test_workers_write_their_checkpoints_though_slurm_signals_them_and_their_parent(store):
    command = [sys.executable, "-m", "lc", "sweep", *SWEEP, "--workers", "2", "--results", store]
    with subprocess.Popen(command, cwd=ROOT) as sweep:
        wait_for(lambda: len(list(store.glob(".claims/*"))) == 2)
        children = text(Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children")).split()
        # beside them may be the process that tidies up after multiprocessing
        assert sum("spawn_main" in text(Path(f"/proc/{child}/cmdline")) for child in children) == 2
        for process in (*children, sweep.pid):
            os.kill(int(process), signal.SIGTERM)
    assert sweep.returncode == 1 and len(list(store.rglob(".checkpoints/**/*.pt"))) == 2
