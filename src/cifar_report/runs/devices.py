"""The device of a job: which one it takes, whether it can be used, what its errors mean, and what it promises."""

import itertools
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import take_lock
from cifar_report.runs import machine

RESUMES = "what was trained is kept: the same command goes on from the last checkpoint"
_held: list[IO] = []  # a lock lasts as long as its file is open


def take_device(locks: Path) -> None:
    """Of several GPUs, takes for this process the one that the fewest jobs hold; a scheduler's choice of one stands.

    Call it before CUDA is set up. The choice ends with the process.

    Args:
        locks: folder for a lock file a device and job.
    """
    devices = visible_devices()
    if len(devices) < 2 or not machine.gpu_visible():
        return
    for place, device in ((place, device) for place in itertools.count() for device in devices):
        if file := take_lock(locks / f"{socket.gethostname()}-{device}-{place}", wait=False):
            _held.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return


def visible_devices() -> list[str]:
    """The NVIDIA GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def require_gpu() -> None:
    """Refuses to train on the CPU where there is a GPU that PyTorch cannot use.

    Raises:
        InputError: with PyTorch's reason, and what to do.
    """
    if not machine.gpu_visible():
        return
    import torch

    if torch.cuda.is_available():
        return
    try:
        torch.cuda.init()
        reason = "no device"
    except (RuntimeError, AssertionError) as error:
        reason = _first_line(error)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        advice = "this PyTorch was built without CUDA; set the environment up anew (make clean setup)"
    elif "driver" in reason.lower():
        advice = (
            f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or install a PyTorch for an older CUDA"
        )
    elif chosen is not None:
        advice = (
            f"CUDA_VISIBLE_DEVICES is '{chosen}'; name a device that `nvidia-smi -L` lists (its number, its UUID, or "
            "that of a MIG instance), or unset it"
        )
    else:
        advice = "`nvidia-smi -L` must list it; a GPU in MIG mode needs an instance"
    raise InputError(
        f"GPU: expected one that PyTorch can use, since the system has one, found none ({reason}); {advice}; "
        "to train on the CPU on purpose, set CUDA_VISIBLE_DEVICES= (to nothing)"
    )


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns the errors of a device inside the block into words; all others pass.

    Raises:
        InputError: memory was used up, or the GPU failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        advice = _advice(error)
        if advice is None:
            raise
        traceback.print_exception(error, file=sys.stdout)  # for the log
        raise InputError(f"{name}: {_first_line(error)}; {advice}; {RESUMES}") from error


def guarantee(settings: dict[str, Any], device: dict[str, str]) -> str:
    """What a run gives when it is trained again, by its settings and its device, both as in `run.json`.

    On one machine, with as many threads and the same versions, a CPU gives the same bits. A GPU gives them again only
    on the same model of GPU and with deterministic algorithms.
    """
    if device["type"] == "cpu":
        return "same bits"
    return "same bits on this GPU" if settings["deterministic"] else "statistics"


def _advice(error: Exception) -> str | None:
    """What to do about an error of memory or of the GPU; None where it is neither."""
    text = str(error)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return "the machine's memory is used up; run fewer jobs at once (--cores), or choose a smaller batch_size"
    used_up = ("out of memory", "STATUS_ALLOC_FAILED")
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in used_up):
        return (
            "the GPU's memory is used up; let fewer jobs share it (--resources gpu=1), end what else uses it "
            "(nvidia-smi lists that), or choose a smaller batch_size"
        )
    failed = ("CUDA error", "CUDA driver", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "NVML")
    if type(error).__name__ != "AcceleratorError" and not any(words in text for words in failed):
        return None
    if "no kernel image" in text or "driver" in text.lower():
        return "this PyTorch was not built for this GPU or its driver; update the driver, or install another build"
    return (
        "the GPU failed or was lost; `nvidia-smi` and the system's log (dmesg) tell more; restart it, or name another "
        "in CUDA_VISIBLE_DEVICES"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
