"""Sweeps as jobs of a real Slurm of this machine, such as scripts/slurm-localhost.sh starts; without one, nothing is tested."""

import socket
import subprocess
import threading
import time

import pytest
import test_cluster
import torch
from test_cluster import ENDLESS, TINY, assert_same_as_a_plain_sweep, run, submissions

import lc
from lc import cluster, jobs, results
from lc.__main__ import main

store = test_cluster.store
SLOW = lc.Recipe("slow", epochs=16, batch_size=8, train_images=128, test_images=16)


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return []


# Only of this very machine: the stores of these tests lie in a folder that no other one sees.
HERE = said("sinfo", "--noheader", "--Node", "--format=%N")
pytestmark = pytest.mark.skipif(set(HERE) != {socket.gethostname().split(".")[0]},
                                reason="no Slurm of one node here: see docs/cluster.md")


class InBackground:
    """A sweep in a thread."""

    def __init__(self, *arguments, **options):
        self.outcome = None
        self.thread = threading.Thread(target=self.work, args=arguments, kwargs=options, daemon=True)
        self.thread.start()

    def work(self, *arguments, **options):
        try:
            self.outcome = cluster.sweep(*arguments, **options)
        except Exception as error:
            self.outcome = error

    def result(self):
        self.thread.join(900)
        assert not self.thread.is_alive()
        return self.outcome


def wait_for(what):
    for _ in range(3000):
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError


def test_an_array_of_two_chunks_gives_the_rows_of_a_plain_sweep(store, tmp_path, capsys):
    runs = [run(), run(False), run(seed=1), run(False, seed=1)]
    trained = cluster.sweep(runs, cluster.parse("chunk=2,cpus=1,time=30,jobs=2"), store, device="cpu")
    assert sorted(trained) == sorted(r.id for r in runs) and submissions(store) == []
    assert "4 runs in 2 jobs of Slurm" in capsys.readouterr().out
    assert_same_as_a_plain_sweep(runs, store, tmp_path)


def requeue(job):
    subprocess.run(["scontrol", "requeue", job], check=True)


def signal_preemption(job):
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def signal_termination(job):
    subprocess.run(["scancel", "--signal=TERM", job], check=True)


def preempt(job):
    """A job of a partition that comes first takes the node."""
    if "urgent" not in said("sinfo", "--noheader", "--format=%R"):
        pytest.skip("no partition that preempts: see scripts/slurm-localhost.sh")
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"], check=True)


@pytest.mark.parametrize("interrupt", [requeue, signal_preemption, signal_termination, preempt])
def test_a_job_that_is_preempted_in_mid_run_goes_on_and_gives_the_same_bits(store, tmp_path, interrupt):
    runs = [run(recipe=SLOW), run(recipe=TINY)]
    sweep = InBackground(runs, cluster.parse("time=60"), store, device="cpu")
    claim, = wait_for(lambda: list(store.glob(".jobs/*/*/.claims/digits*")))
    job_store = claim.parents[1]
    job = jobs._read(job_store)["name"]
    interrupt(job)
    checkpoint = results.checkpoint_path(runs[0].id, job_store)
    wait_for(checkpoint.exists)
    wait_for(lambda: jobs.squeue("--jobs", job, "--format=%T") == ["PENDING"])
    epochs, position = torch.load(checkpoint, weights_only=True)["state"]["trainer"]["done"]
    assert (0, 0) < (epochs, position) < (SLOW.epochs, 0)
    assert cluster.sweep(runs, cluster.parse(""), store, device="cpu") == []  # under way, though requeued
    assert sorted(sweep.result()) == sorted(r.id for r in runs)
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    assert "Restarts=1" in shown and submissions(store) == []
    assert_same_as_a_plain_sweep(runs, store, tmp_path)


def test_a_job_that_is_cancelled_stays_cancelled_and_is_named(store, monkeypatch):
    monkeypatch.setattr(cluster._Slurm, "lag", 0.0)
    endless = run(recipe=ENDLESS)
    sweep = InBackground([endless], cluster.parse(""), store, device="cpu")
    claim, = wait_for(lambda: list(store.glob(".jobs/*/*/.claims/digits*")))
    job = jobs._read(claim.parents[1])["name"]
    time.sleep(5)
    subprocess.run(["scancel", job], check=True)
    failed = sweep.result()
    assert isinstance(failed, lc.TrainingError) and f"job {job} left 1 of 1 runs untrained" in str(failed)
    assert jobs.squeue("--jobs", job, "--states=all", "--format=%T") == ["CANCELLED"]
    assert results.checkpoint_path(endless.id, store).exists()  # the next sweep goes on from there


def test_a_refusal_is_one_line_and_leaves_nothing(store):
    with pytest.raises(ValueError, match="Slurm refused the jobs: .*partition") as refused:
        cluster.sweep([run()], cluster.parse("partition=nowhere"), store, device="cpu")
    assert "\n" not in str(refused.value) and submissions(store) == []


def test_jobs_go_on_without_the_one_who_submitted_them(store, capsys):
    assert cluster.sweep([run()], cluster.parse(""), store, device="cpu", stop=lambda: True) == []
    assert "the jobs go on" in capsys.readouterr().out
    submission, = submissions(store)
    with pytest.raises(ValueError, match="under way"):
        cluster.take_over([run()], store)
    wait_for(lambda: jobs.squeue("--states=all", f"--name={submission}", "--format=%T") == ["COMPLETED"])
    main(["sweep", "figure4", "--profile", "smoke", "--results", str(store), "--time-limit", "0", "--device", "cpu"])
    assert "took over 1 runs of job" in capsys.readouterr().out
    assert list(results.load_rows(store)) == [run().id] and submissions(store) == []
