"""NVIDIA's Multi-Process Service: several processes compute on one GPU at the same time. Without it they take turns."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager

CONTROL = "nvidia-cuda-mps-control"
PROBE = [sys.executable, "-c",
         "import torch; [torch.ones(1, device=i).item() for i in range(torch.cuda.device_count())] or exit('no GPU is visible')"]
TIMEOUT = 120.0  # seconds


@contextmanager
def multi_process_service(gpus):
    """Runs the service while the context lasts, in a folder of its own, so that no other program uses it.

    Args:
        gpus: the GPUs of the workers as in `CUDA_VISIBLE_DEVICES`. Without any, no service is started. The service renumbers
            its GPUs, so they need their UUIDs.

    Yields:
        Environment variables for the workers. Empty if no service is wanted, or it is already running, not installed or not
        working; the last two print a warning.
    """
    wanted = gpus and "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    if not wanted or not shutil.which(CONTROL):
        if wanted:
            print(f"warning: {CONTROL} is not installed: workers on one GPU take turns", flush=True)
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="lc-mps-", ignore_cleanup_errors=True) as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | variables | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}

        def succeeds(*command, **options):
            try:
                return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      timeout=TIMEOUT, **options).returncode == 0
            except (OSError, subprocess.TimeoutExpired):
                return False

        try:
            works = succeeds(CONTROL, "-d") and succeeds(*PROBE)  # a container may lack what the service needs
            if not works:
                print(f"warning: {CONTROL} does not work here: workers on one GPU take turns", flush=True)
            yield variables if works else {}
        finally:
            succeeds(CONTROL, input=b"quit\n")
