"""Several processes on one GPU at the same time, by NVIDIA's Multi-Process Service; without it, they take turns.

One run of a small network leaves most of a large GPU idle; each process has a CUDA graph and memory of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager

CONTROL = "nvidia-cuda-mps-control"
PROBE = [sys.executable, "-c", "import torch; torch.ones(1, device='cuda').item()"]
TIMEOUT = 120.0  # seconds


@contextmanager
def multi_process_service(wanted=True):
    """The service for as long as the context lasts, in a folder of its own: nobody else's programs see it.

    Yields:
        The environment variables of the processes that are to share a GPU; none where the service is not wanted, not
        installed, or does not work here, which is said aloud, or where one runs already.
    """
    if not wanted or "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
        yield {}
        return
    if not shutil.which(CONTROL):
        print(f"{CONTROL} is not here: workers on one GPU take turns", flush=True)
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="lc-mps-", ignore_cleanup_errors=True) as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}

        def call(*command, **options):
            try:
                return subprocess.run(command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      timeout=TIMEOUT, **options).returncode
            except (OSError, subprocess.TimeoutExpired):
                return 1

        try:
            works = call(CONTROL, "-d") == 0 and call(*PROBE) == 0  # a container may lack what the service needs
            if not works:
                print(f"{CONTROL} does not work here: workers on one GPU take turns", flush=True)
            yield variables if works else {}
        finally:
            call(CONTROL, input=b"quit\n")
