"""The machine that a result was made on: versions, commit, processor, and whether a GPU can be used."""

import gc
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import cifar_report
from cifar_report.study.kinds import KINDS

PACKAGE = Path(cifar_report.__file__).parent


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


def commit() -> dict[str, Any]:
    """Git's commit of the package's checkout: its hash, its time (seconds since 1970) and whether files differ.

    Outside a checkout the hash is None.
    """
    try:
        show = _git("show", "--no-patch", "--format=%H %ct", "HEAD").split()
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"hash": None, "time": None, "dirty": None}
    return {"hash": show[0], "time": int(show[1]), "dirty": dirty}


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_model() -> str:
    """Vendor, family and model of the processor: libraries choose their arithmetic by these, whatever its name says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return " ".join(known[key] for key in ("vendor_id", "cpu family", "model") if key in known) or platform.machine()


def gpu_visible() -> bool:
    """Whether an NVIDIA GPU can be used, found out without importing torch (seconds)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    # A container or the Windows subsystem may show the devices without the driver's folder.
    return (
        any(Path("/proc/driver/nvidia/gpus").glob("*"))
        or any(Path("/dev").glob("nvidia[0-9]*"))
        or Path("/dev/dxg").exists()
    )


def environment(kind: str) -> dict[str, Any]:
    """What computes: a run's last bits are those of its versions, device and processor kernels."""
    device = {"type": "cpu", "cpu": cpu_name(), "model": cpu_model()}
    packages = ["numpy"]
    if KINDS[kind].backend == "torch":
        import torch

        packages.append("torch")
        device["kernels"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            device |= {"type": "cuda", "gpu": torch.cuda.get_device_name()}
    else:
        from threadpoolctl import threadpool_info

        # For which processor the library chose its arithmetic; the environment may overrule its name.
        chosen = {info["architecture"] for info in threadpool_info() if "architecture" in info}
        device["kernels"] = ", ".join(sorted(chosen)) or "unknown"
    return {"versions": versions(*packages), "device": device}


def forget_peaks() -> None:
    """Frees what an earlier run of this process held, and has the peaks of memory counted anew."""
    gc.collect()
    with suppress(OSError):  # not on every system, nor for every user
        Path("/proc/self/clear_refs").write_text("5")
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """The most main memory that this process held since `forget_peaks`, in MB of 10⁶ bytes."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
