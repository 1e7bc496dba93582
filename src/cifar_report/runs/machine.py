"""The machine that a result was made on: versions, commit, processor, and whether a GPU can be used."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import cifar_report

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
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        return False
    # A container or the Windows subsystem may show the devices without the driver's folder.
    return (
        any(Path("/proc/driver/nvidia/gpus").glob("*"))
        or any(Path("/dev").glob("nvidia[0-9]*"))
        or Path("/dev/dxg").exists()
    )
