"""A device that cannot be used, or that fails: a message with the fix, a run that goes on, never silently the CPU."""

import dataclasses
import os
import platform
import resource
import sys
from types import SimpleNamespace

import pytest
import torch
from runs import obtain, settings

from cifar_report.base.errors import InputError
from cifar_report.runs import devices, machine
from cifar_report.training import loop

SETTINGS = settings(kind="torch-mlp", optimiser="adam")


@pytest.fixture
def unusable(monkeypatch):
    """A system with a GPU that PyTorch cannot use, for the reason given."""

    def because(error, cuda="13.0"):
        def init():
            raise error

        monkeypatch.setattr(machine, "gpu_visible", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return because


OLD_DRIVER = RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update\nmore")
NO_DEVICE = RuntimeError("No CUDA GPUs are available")


@pytest.mark.parametrize(
    ("error", "chosen", "cuda", "fix"),
    [
        (OLD_DRIVER, None, "13.0", "Please update); update the NVIDIA driver to one for CUDA 13.0"),
        (AssertionError("Torch not compiled with CUDA enabled"), None, None, "built without CUDA"),
        (NO_DEVICE, "7", "13.0", "CUDA_VISIBLE_DEVICES is '7'; name a device that `nvidia-smi -L` lists"),
        (NO_DEVICE, "MIG-0a", "13.0", "CUDA_VISIBLE_DEVICES is 'MIG-0a'"),
        (NO_DEVICE, None, "13.0", "a GPU in MIG mode needs an instance"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used_is_refused(unusable, monkeypatch, dataset, tmp_path, error, chosen, cuda, fix):
    unusable(error, cuda)
    if chosen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    with pytest.raises(InputError) as raised:
        obtain(SETTINGS, 0, dataset, tmp_path, "mlp")
    assert fix in str(raised.value) and "CUDA_VISIBLE_DEVICES= (to nothing)" in str(raised.value)
    assert not list(tmp_path.glob("*/finished"))


def test_a_numpy_run_does_not_ask_for_a_gpu(unusable, dataset, tmp_path):
    unusable(NO_DEVICE)
    settings = dataclasses.replace(SETTINGS, kind="numpy-mlp", optimiser="sgd", slope=0.02)
    obtain(settings, 0, dataset, tmp_path, "mlp")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), "--resources gpu=1"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "--resources gpu=1"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "dmesg"),
        (torch.AcceleratorError("CUDA error: unspecified launch failure", 719), "dmesg"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "another build"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "--cores"),
        (MemoryError("Unable to allocate 9.00 GiB for an array"), "--cores"),
    ],
)  # fmt: skip
def test_a_device_that_fails_is_explained_and_the_run_goes_on_later(monkeypatch, dataset, tmp_path, capsys, error, fix):
    """After step 2 the device fails: words with the fix; the next call goes on from step 2 to the same bytes."""
    build = loop.build_trainer

    def build_failing(*arguments):
        trainer = build(*arguments)
        advance = trainer.advance

        def fail_later(until):
            if trainer.step == 2:
                raise error
            advance(until)

        trainer.advance = fail_later
        return trainer

    whole = obtain(SETTINGS, 0, dataset, tmp_path / "whole", "whole")
    monkeypatch.setattr(loop, "build_trainer", build_failing)
    with pytest.raises(InputError) as raised:
        obtain(SETTINGS, 0, dataset, tmp_path / "broken", "mlp")
    message = str(raised.value)
    assert message.startswith("mlp: ") and fix in message and "goes on from the last checkpoint" in message
    monkeypatch.setattr(loop, "build_trainer", build)
    resumed = obtain(SETTINGS, 0, dataset, tmp_path / "broken", "resumed")
    assert "resumed: goes on from step 2" in capsys.readouterr().out
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), devices.explained("mlp"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_jobs_spread_over_the_gpus(monkeypatch, tmp_path):
    """Three jobs at once on two GPUs; one that ends makes room. A scheduler's single device is left alone."""
    monkeypatch.setattr(machine, "gpu_visible", lambda: True)
    monkeypatch.setattr(devices, "_held", [])
    taken = []
    for _ in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        devices.take_device(tmp_path)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["4", "5", "4"]
    devices._held[1].close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    devices.take_device(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    devices.take_device(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6" and len(devices._held) == 4
    for file in devices._held:
        file.close()


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Writes a file of the system, which holds nothing else."""

    def write(name, text=""):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    monkeypatch.setattr(machine, "Path", lambda name: tmp_path / name.lstrip("/"))
    return write


@pytest.mark.parametrize(("chosen", "visible"), [(None, True), ("0", True), ("", False), ("-1", False)])
def test_a_gpu_is_seen_unless_it_is_hidden(system, monkeypatch, chosen, visible):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert not machine.gpu_visible()
    system("dev/nvidia0")
    assert machine.gpu_visible() is visible


def test_the_processor_is_named(system, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.cpu_name() == "aarch64"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert machine.cpu_name() == "arm"
    system("proc/cpuinfo", "processor\t: 0\n")
    assert machine.cpu_name() == "aarch64"
    system("proc/cpuinfo", "processor\t: 0\nmodel name\t: A: 2 GHz\nmodel name\t: B\n")
    assert machine.cpu_name() == "A: 2 GHz"


def test_the_peak_of_memory_is_what_the_system_tells(system, monkeypatch):
    """In KiB, and where it tells none, that of the whole life of the process."""
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3000))
    assert machine.peak_memory_mb() == 3.072
    system("proc/self/status", "VmPeak:\t 9000 kB\nVmHWM:\t 2000 kB\n")
    assert machine.peak_memory_mb() == 2.048


@pytest.mark.parametrize("used", [True, False])
def test_a_gpu_that_is_used_counts_its_memory_anew(system, monkeypatch, used):
    called = []
    cuda = SimpleNamespace(
        is_initialized=lambda: used,
        empty_cache=lambda: called.append("freed"),
        reset_peak_memory_stats=lambda: called.append("reset"),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    machine.forget_peaks()
    assert called == (["freed", "reset"] if used else [])


def test_a_run_is_told_of_what_computed_it_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    told = machine.environment("numpy-mlp")
    assert set(told["versions"]) == {"python", "numpy"} and told["device"]["type"] == "cpu"
    told = machine.environment("torch-mlp")
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (told["device"]["type"], told["device"]["gpu"]) == ("cuda", "a GPU")


def test_what_a_run_guarantees():
    free, strict = SETTINGS.full(), dataclasses.replace(SETTINGS, deterministic=True).full()
    assert devices.guarantee(free, {"type": "cpu"}) == devices.guarantee(strict, {"type": "cpu"}) == "same bits"
    assert devices.guarantee(strict, {"type": "cuda"}) == "same bits on this GPU"
    assert devices.guarantee(free, {"type": "cuda"}) == "statistics"
