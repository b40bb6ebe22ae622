"""Several processes on one GPU. A program in the place of NVIDIA's writes down how it is called."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lc import results
from lc.sweep import mps, workers


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Puts a `nvidia-cuda-mps-control` in the path. Returns a function: the lines that it was told so far, with its folder."""
    log = tmp_path / "calls"
    program = tmp_path / mps.CONTROL
    program.write_text(f'''#!/bin/sh
[ "$1" = -d ] && echo "start $CUDA_MPS_PIPE_DIRECTORY $CUDA_VISIBLE_DEVICES" >>{log} || cat >>{log}
''')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    log.touch()
    return lambda: log.read_text().splitlines()


def probe(monkeypatch, code):
    monkeypatch.setattr(mps, "PROBE", [sys.executable, "-c", code])


def test_the_service_runs_for_as_long_as_the_workers(control, monkeypatch):
    probe(monkeypatch, "import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == 'GPU-1,GPU-2'")
    with pytest.raises(KeyError), mps.multi_process_service(["GPU-1", "GPU-2"]) as variables:
        folder = variables["CUDA_MPS_PIPE_DIRECTORY"]
        assert control() == [f"start {folder} GPU-1,GPU-2"] and os.path.isdir(folder)
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
        raise KeyError
    assert control() == [f"start {folder} GPU-1,GPU-2", "quit"] and not os.path.exists(folder)


def test_one_that_does_not_work_is_left_out_with_a_warning(control, monkeypatch, capsys):
    probe(monkeypatch, "raise SystemExit(1)")
    with mps.multi_process_service(["GPU-1", "GPU-2"]) as variables:
        assert variables == {}
    assert control()[1] == "quit"
    assert "warning: nvidia-cuda-mps-control does not work here: workers on one GPU take turns" in capsys.readouterr().out


def test_one_that_hangs_does_not_hold_up_the_workers(control, monkeypatch):
    probe(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(mps, "TIMEOUT", 2.0)
    with mps.multi_process_service(["GPU-1", "GPU-2"]) as variables:
        assert variables == {}


def test_one_that_is_not_installed_is_left_out_with_a_warning(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    with mps.multi_process_service(["GPU-1", "GPU-2"]) as variables:
        assert variables == {}
    assert "warning: nvidia-cuda-mps-control is not installed: workers on one GPU take turns" in capsys.readouterr().out


def test_one_that_runs_already_is_left_alone(control, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/somewhere")
    with mps.multi_process_service(["GPU-1", "GPU-2"]) as variables:
        assert variables == {}
    assert control() == []


@pytest.mark.parametrize("gpus, shares", [(["GPU-1", "GPU-1"], True), (["GPU-1", "GPU-2"], False)])
def test_workers_have_the_service_if_they_share_a_gpu(gpus, shares, control, monkeypatch, tmp_path):
    probe(monkeypatch, "")
    monkeypatch.setattr(workers, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(workers, "worker_environments", lambda *_: [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus])
    seen, start = [], workers._start

    def record(command, environment, log):
        seen.append(environment)
        return start([sys.executable, "-c", ""], environment, log)

    monkeypatch.setattr(workers, "_start", record)
    assert workers.sweep(["figure4"], "smoke", tmp_path / "store", workers=2, device="cpu") == []
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == gpus
    assert all(("CUDA_MPS_PIPE_DIRECTORY" in environment) == shares for environment in seen)
    assert control()[:1] == ([f"start {seen[0]['CUDA_MPS_PIPE_DIRECTORY']} GPU-1"] if shares else [])
    assert results.load_rows(tmp_path / "store") == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_works_or_is_left_out():
    with mps.multi_process_service(workers._gpus()) as variables:
        assert mps.subprocess.run(mps.PROBE, env=os.environ | variables).returncode == 0
