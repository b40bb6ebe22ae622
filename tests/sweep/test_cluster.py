"""Sweeps as jobs: chunks, stores of their own, what is left behind, and preemption, without a Slurm."""

import random
import shutil
import signal
import sys

import pytest
from test_results import result

import lc
from lc import cluster, jobs, results, study
from lc.__main__ import main

TINY = lc.Recipe("tiny", epochs=1, batch_size=8, train_images=32, test_images=16)
ENDLESS = lc.Recipe("endless", epochs=1000, batch_size=8, train_images=128, test_images=16)
BROKEN = lc.Recipe("broken", epochs=1, batch_size=8, train_images=32, test_images=16, learning_rate=1e30)


def run(frozen=True, recipe=TINY, seed=0):
    return lc.Run("ResNet-LC-8-8x2", "digits", frozen, seed, recipe)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store; a job must find `lc` by itself."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def no_slurm(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)


def assert_same_as_a_plain_sweep(runs, store, tmp_path):
    plain = tmp_path / "plain"
    study.train_missing(runs, plain, device="cpu")
    ours, theirs = results.load_rows(store), results.load_rows(plain)
    assert set(ours) == set(theirs) == {run.id for run in runs}
    for run_id, row in theirs.items():
        for column in ("accuracy", "robust_accuracy", "train_loss", "precision", "device"):
            assert ours[run_id][column] == row[column], column
        arrays = results.load_arrays(run_id, store)
        assert all((arrays[name] == values).all() for name, values in results.load_arrays(run_id, plain).items())


def submissions(store):
    return [path.name for path in (store / ".jobs").iterdir() if path.is_dir()]


def test_options_are_parsed():
    defaults = cluster.parse("")
    assert defaults["time"] == 60 and defaults["partition"] is None
    assert cluster.parse("partition=gpu, time=90,gpus=1,") == defaults | {"partition": "gpu", "time": 90, "gpus": 1}


@pytest.mark.parametrize("arguments, message", [
    (["--slurm", "partitoin=gpu"], "unknown option 'partitoin' of --slurm; known: partition, account,"),
    (["--slurm", "gpu"], "unknown option 'gpu' of --slurm"),
    (["--slurm", "time=1:00:00"], "time of --slurm must be an integer of at least 1, not '1:00:00'"),
    (["--slurm", "chunk=0"], "chunk of --slurm must be an integer of at least 1, not '0'"),
    (["--slurm", "qos="], "qos of --slurm must be text, not ''"),
    (["--slurm", "", "--time-limit", "5"], "--slurm goes without"),
    (["--slurm", "", "--workers", "2"], "--slurm goes without"),
    (["--slurm", "", "--device", "gpu"], "unknown device 'gpu'"),
    (["--slurm", "", "--precision", "fp8"], "unknown precision 'fp8'"),
])
def test_a_mistake_is_answered_in_one_line_before_anything_is_submitted(arguments, message, store):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "figure4", "--profile", "smoke", "--results", str(store), *arguments])
    assert message in str(stopped.value) and "\n" not in str(stopped.value)
    assert not store.exists()


def test_without_submitit_it_is_said_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match="pip install submitit"):
        cluster.sweep([run()], cluster.parse(""), store)
    assert not store.exists()


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_chunks_are_disjoint_complete_of_one_shape_and_no_larger_than_asked(size):
    def shape(run):
        a = run.architecture
        return run.dataset, a.depth, a.width, a.kernel_size, run.frozen

    everything = study.everything()
    for runs in (everything, random.Random(size).sample(everything, 100), everything[:1], []):
        chunked = cluster.chunks(runs, size)
        assert sorted((r for chunk in chunked for r in chunk), key=runs.index) == runs
        for chunk in chunked:
            assert 1 <= len(chunk) <= size and len({shape(r) for r in chunk}) == 1
            assert chunk[0].architecture.depth or len({r.model for r in chunk}) == 1
    assert len(cluster.chunks(everything, 1000)) == len({(shape(r), r.architecture.depth or r.model) for r in everything})


def test_without_slurm_jobs_run_here_and_one_that_fails_is_named_with_its_log(store, no_slurm, tmp_path, capsys):
    good, bad = [run(), run(False)], run(recipe=BROKEN)
    with pytest.raises(lc.TrainingError) as failed:
        cluster.sweep([*good, bad], cluster.parse(""), store, device="cpu")
    assert f"left 1 of 2 runs untrained (lc.trainer.TrainingError: {bad.id}: the loss became" in str(failed.value)
    log = str(failed.value).split("log: ")[1]
    assert "Traceback" in open(log).read()
    assert_same_as_a_plain_sweep(good, store, tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("3 runs in 2 jobs of this machine, which has no Slurm; logs: ")
    assert sorted(line.split(": ")[1].split(";")[0] for line in printed[1:]) == ["1 of 1 runs", "1 of 2 runs"]
    assert not list(store.glob(".jobs/*/*/job.json")) and len(submissions(store)) == 1
    cluster.take_over([], store)
    assert submissions(store) == []
    assert cluster.sweep(good, cluster.parse(""), store, device="cpu") == []


def test_a_sweep_that_is_stopped_here_leaves_its_run_as_a_checkpoint_that_the_next_sweep_goes_on_from(store, no_slurm):
    endless, other = run(recipe=ENDLESS), run(False, ENDLESS)

    def stop():
        return len(list(store.glob(".jobs/*/*/.claims/digits*"))) > 0

    assert cluster.sweep([endless, other], cluster.parse(""), store, device="cpu", stop=stop) == []
    assert results.checkpoint_path(endless.id, store).exists() and not results.checkpoint_path(other.id, store).exists()
    assert submissions(store) == []


def left_over(store, kind, runs, trained):
    """What a job leaves that ended with nobody waiting for it."""
    job = jobs.Job(runs, store / ".jobs" / f"{kind}-20260101-000000-somewhere-1" / jobs.number(0), {})
    jobs.record(job, "7_0")
    for r in trained:
        results.append(result(r.seed, id=r.id, model=r.model, frozen=r.frozen, profile=r.recipe.profile), job.store)
    return job


@pytest.mark.parametrize("kind, states", [("local", None), ("slurm", []), ("slurm", ["7_0 FAILED"]), ("slurm", ["7 TIMEOUT"])])
def test_what_jobs_left_is_taken_over(store, kind, states, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "squeue", lambda *_: states)
    runs = [run(), run(seed=1)]
    job = left_over(store, kind, runs, runs[:1])
    checkpoint = results.checkpoint_path(runs[1].id, job.store)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half a training")
    cluster.take_over(runs, store)
    assert set(results.load_rows(store)) == {runs[0].id} and len(results.load_arrays(runs[0].id, store)) > 0
    assert results.checkpoint_path(runs[1].id, store).read_text() == "half a training" and not job.store.exists()
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("took over 1 runs of job 7_0; job 7_0 left 1 of 2 runs untrained (it said nothing); log: ")
    assert len(submissions(store)) == 1  # the log stays until it was told of
    cluster.take_over(runs, store)
    assert submissions(store) == []


def test_a_damaged_note_of_a_job_is_named(store, monkeypatch):
    monkeypatch.setattr(jobs, "squeue", lambda *_: [])
    job = left_over(store, "slurm", [run()], [])
    (job.store / "job.json").write_text("{")
    with pytest.raises(results.ResultsError, match="job.json: damaged .* merge the rows in .* and delete it"):
        cluster.take_over([run()], store)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "PREEMPTED", "NODE_FAIL"])
def test_what_may_still_run_is_left_alone_and_not_submitted_again(store, state, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "squeue", lambda *_: [f"7_0 {state}"])
    job = left_over(store, "slurm", [run(), run(seed=1)], [run()])
    assert cluster.sweep(job.runs, cluster.parse(""), store, device="cpu") == []
    assert capsys.readouterr().out == "2 runs are under way in other jobs\n"
    with pytest.raises(ValueError, match="1 of these runs are under way in jobs"):
        cluster.take_over([run(seed=1), run(seed=2)], store)
    cluster.take_over([run(seed=2)], store)
    assert results.load_rows(job.store) and not results.load_rows(store)


def test_jobs_are_left_alone_where_slurm_cannot_be_asked(store, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    job = left_over(store, "slurm", [run()], [])
    assert cluster.sweep(job.runs, cluster.parse(""), store, device="cpu") == [] and job.store.exists()
    assert "squeue does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("name, path", [("job", "0000"), ("submission", ".")])
def test_a_job_of_this_machine_is_under_way_while_it_or_who_started_it_lives(store, name, path):
    job = left_over(store, "local", [run()], [run()])
    with results.claim(name, job.store.parent / path), pytest.raises(ValueError, match="under way"):
        cluster.take_over(job.runs, store)
    cluster.take_over(job.runs, store)
    assert list(results.load_rows(store)) == [run().id]


@pytest.mark.parametrize("executor, state, number, requeues", [
    ("slurm", "RUNNING", signal.SIGTERM, True), ("slurm", "RUNNING", signal.SIGUSR1, True),
    ("slurm", "RUNNING", signal.SIGUSR2, True),
    ("slurm", "COMPLETING", signal.SIGTERM, False),  # cancelled, or requeued by Slurm itself
    ("local", None, signal.SIGTERM, False),
])
def test_a_preempted_job_asks_for_a_requeue_only_when_slurm_does_not_see_to_it(
        store, executor, state, number, requeues, monkeypatch):
    job, asked = left_over(store, "slurm", [run()], []), []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(jobs, "squeue", lambda *_: [state])
    monkeypatch.setattr(study, "train_missing", lambda *_, stop, **__: (signal.raise_signal(number), stop())[1] or pytest.fail())
    before = signal.signal(signal.SIGUSR2, lambda *_: asked.append("requeue"))
    try:
        with pytest.raises(SystemExit):
            job()
        assert asked == ["requeue"] * requeues
        assert job.checkpoint().function is job
        results.append(result(id=run().id, profile="tiny"), job.store)
        assert job() is None and asked == ["requeue"] * requeues  # nothing is left to do
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_job_that_was_taken_over_does_not_train_again(store):
    with pytest.raises(FileNotFoundError, match="taken over already"):
        jobs.Job([run()], store / ".jobs" / "slurm-1" / "0000", {})()
