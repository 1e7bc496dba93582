"""A study that is killed, interrupted and starved of disk comes out the same; who may work on it, and how it ends."""

import base64
import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import chaos
import forked
import numpy as np
import psutil
import pytest
from runs import obtain, requested, settings
from safetensors import safe_open
from safetensors.numpy import save_file

from cifar_report import cli
from cifar_report.base import files
from cifar_report.runs import checkpoints, store

SETTINGS = settings(steps=50, evaluate_every=10, evaluation_images=100, hidden=(20,), slope=0.02)
STORM = ["job", "job", "snakemake", "group", "job"]
OVERLAY = chaos.OVERLAY | {
    "run": ["mlp-numpy"],
    "variants": {"mlp-numpy": {"steps": 3000, "evaluate_every": chaos.EVALUATE_EVERY}},
}
RUN = "results/chaos/runs/mlp-numpy/seed-0/run.json"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One that has been made undisturbed."""
    study = chaos.Study(tmp_path_factory.mktemp("chaos"), [RUN], OVERLAY)
    study.start()
    study.finish()
    return study


def test_a_storm_changes_no_byte(study):
    """The short form of `make chaos`: kills of jobs, of Snakemake, of all; then the same command again."""
    reference = study.digests()
    assert len(reference) == 3
    study.forget()
    chance = random.Random(1)
    total = chaos.storm(study, reference, STORM, lambda: chance.uniform(0.1, 1.5), chance)
    assert study.digests() == reference
    assert {fault: (count.injected, count.lost) for fault, count in total.items()} == {
        fault: (STORM.count(fault), 0) for fault in STORM
    }
    assert not list(study.folder.glob("results/.store/**/*.tmp"))


def test_a_second_snakemake_is_refused_and_names_the_first(study):
    study.forget()
    study.start()
    assert study.await_job()
    jobs = study.descendants()
    for job in jobs:
        job.suspend()  # so that the first has not ended before the second begins
    second = chaos.Study(study.folder, study.targets, OVERLAY)
    second.log = study.log.with_name("second.log")
    lock, results = study.folder / "results/.locks/chaos", study.folder / "results/chaos"
    aside = lock.parent.with_name("aside")
    for spoil in (
        lambda: None,
        lambda: lock.write_bytes(b"\xff\xfe"),
        lambda: lock.parent.rename(aside),
        lambda: (aside.rename(lock.parent), results.rename(results.with_name("gone"))),
    ):
        spoil()
        second.start()
        assert second.process.wait() == 1
        assert f"process {study.process.pid} on " in second.log.read_text()
    shutil.rmtree(results, ignore_errors=True)
    results.with_name("gone").rename(results)
    for job in jobs:
        job.resume()
    study.finish()


def test_ctrl_c_ends_all_and_says_how_to_go_on(study):
    study.forget()
    study.start()
    assert study.await_job()
    time.sleep(0.2)  # into its start, long before its end
    jobs = study.descendants()
    os.killpg(study.process.pid, signal.SIGINT)
    assert study.process.wait(30) == 1
    assert not psutil.wait_procs(jobs, timeout=2)[1]
    assert "The same command goes on from here" in study.log.read_text()
    study.start()
    study.finish()


def test_latex_ends_with_what_has_started_it(tmp_path):
    for name in ("report", "results/tables", "results/figures"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "results/numbers.tex").write_text("% SOURCE_DATE_EPOCH 0\n")
    (tmp_path / "report/report.tex").write_text(r"\def\x{\x}\x")  # without an end
    command = [chaos.ROOT / "workflow/scripts/render-report", "report", "results", "report.pdf", "source.tar.gz"]
    script = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    engines = []
    while script.poll() is None and not engines:
        with contextlib.suppress(psutil.NoSuchProcess):  # what the script calls before ends while it is looked at
            processes = psutil.Process(script.pid).children(recursive=True)
            engines = [process for process in processes if process.name() in ("pdflatex", "tectonic")]
    script.kill()
    script.wait()
    _, alive = psutil.wait_procs(engines, timeout=chaos.GONE_WITHIN)
    for process in alive:
        process.kill()
    assert engines and not alive


def test_stale_locks_of_snakemake_are_removed(study):
    """As older versions, or a call without the profile, leave them; those of another study stay."""
    locks = study.folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(f"{RUN}\n")
    (locks / "1.output.lock").write_text("results/other/report.pdf\n")
    study.start()
    study.finish()
    assert [path.name for path in locks.glob("*.lock")] in (["1.output.lock"], [])


def test_damaged_records_of_snakemake_are_removed_and_made_again(study):
    """Whatever lies in their place, and the marks of jobs that have not ended; the run itself comes from the store."""
    before = study.digests()
    home = study.folder / "results/.records"
    names = {base64.urlsafe_b64decode(path.name).decode(): path for path in home.iterdir()}
    contents = [b"\xff{", b'"x"', b'{"starttime": "abc"}', b"[" * 100_000, b"{", None]
    damaged = dict(zip((name for name in names if "seed-0" in name or "dataset" in name), contents, strict=False))
    assert len(damaged) == len(contents)
    for name, content in damaged.items():
        names[name].unlink()
        if content is None:
            (names[name] / "below").mkdir(parents=True)
        else:
            names[name].write_bytes(content)
    (study.folder / ".snakemake/incomplete" / names[RUN].name).write_text("5")
    study.start()
    assert study.process.wait() == 0
    printed = study.log.read_text()
    for name in damaged:
        assert f"is a damaged record of Snakemake's and removed; where the study asks for {name}, it" in printed
        assert json.loads(names[name].read_text())["starttime"] > 0
    assert study.digests() == before


PLACES = {
    "results/.records": Path.touch,
    ".snakemake/locks/7.output.lock": os.mkfifo,
    ".snakemake/locks/8.output.lock": Path.mkdir,
    ".snakemake/locks/9.input.lock": lambda path: path.symlink_to("nowhere"),
    "results/chaos/logs": Path.touch,
    "results/chaos/tables": lambda path: path.symlink_to("nowhere"),
    "results/chaos/runs/mlp-numpy": Path.touch,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_lies_in_the_place_of_a_folder_or_a_lock_is_named(study, place):
    path = study.folder / place
    kept = path.with_name(f"{path.name}.kept")
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rename(kept)
    PLACES[place](path)
    arguments = ["-n", "--cores", "1", "--configfile", "config/demo.yaml", study.overlay]
    code, printed = forked.snakemake(study.folder, arguments)
    path.rmdir() if path.is_dir() else path.unlink()
    if kept.exists():
        kept.rename(path)
    assert code == 1 and "Traceback" not in printed
    assert re.search(rf"^{re.escape(place)}: expected a .*, found something else; remove it$", printed, re.MULTILINE)


def test_a_damaged_checkpoint_is_not_gone_on_from(dataset, tmp_path, monkeypatch, capsys):
    """Whether cut off or with one weight changed: the run begins anew and ends the same."""
    whole = obtain(SETTINGS, 0, dataset, tmp_path / "whole", "whole")
    save = checkpoints.save

    def save_then_die(path, identity, environment, checkpoint):
        save(path, identity, environment, checkpoint)
        raise KeyboardInterrupt

    for name, damage in {"cut": _cut, "changed": _change}.items():
        monkeypatch.setattr(checkpoints, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            obtain(SETTINGS, 0, dataset, tmp_path / name, name)
        monkeypatch.undo()
        damage(next((tmp_path / name).rglob("checkpoint.safetensors")))
        again = obtain(SETTINGS, 0, dataset, tmp_path / name, name)
        assert "begins anew" in capsys.readouterr().out
        for file in ("model.safetensors", "curve.csv", "test-logits.npy"):
            assert (again / file).read_bytes() == (whole / file).read_bytes(), (name, file)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _change(path):
    with safe_open(path, "numpy") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    first = next(array for array in state.values() if array.dtype == np.float32)
    first.flat[0] += 1
    save_file(state, path, metadata)


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    path = tmp_path / "run.json"
    command = (
        "import os, sys, pathlib; from cifar_report.base.files import atomic\n"
        f"with atomic(pathlib.Path({str(path)!r})) as file: file.write(b'half'); print(flush=True); sys.stdin.read()"
    )
    live, killed = (
        subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in "ab"
    )
    for process in (live, killed):
        process.stdout.readline()
    killed.kill()
    killed.wait()
    files.write_text(path, "whole")
    assert [left.name for left in tmp_path.glob(".*.tmp")] == [f".run.json.{live.pid}.tmp"]
    assert path.read_text() == "whole"
    live.communicate()
    assert path.read_text() == "half" and not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_ends_with_a_message_and_tears_nothing(tmp_path, monkeypatch, capsys):
    path = tmp_path / "summary.csv"
    files.write_text(path, "before")

    def fill(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fill)
    monkeypatch.setattr(cli, "_parser", lambda: _parser_of(lambda: files.write_text(path, "after")))
    assert cli.main([]) == 1
    assert capsys.readouterr().err == f"cifar-report: {path}: No space left on device\n"
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def _parser_of(command):
    return SimpleNamespace(parse_args=lambda _: SimpleNamespace(command=command)), {}


@pytest.mark.parametrize("kind", ["a file where a folder is expected", "read-only", "full", "vanished"])
def test_a_results_folder_that_cannot_be_written(dataset, tmp_path, monkeypatch, capsys, kind):
    """Message with the file's name, exit code 1, no file torn. Mounts are made where they can be, by root."""
    output = tmp_path / "results"
    finished = obtain(SETTINGS, 0, dataset, tmp_path / "store", "run")
    publish = partial(store.publish, finished, output / "run", requested(SETTINGS, 0, dataset), "mlp")
    monkeypatch.setattr(cli, "_parser", lambda: _parser_of(publish))
    capsys.readouterr()
    with contextlib.ExitStack() as stack:
        output.mkdir()
        mounted = kind not in ("a file where a folder is expected", "vanished") and stack.enter_context(
            chaos.small_disk(output, 1)
        )
        if mounted and kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(output)], check=True)
        elif mounted:
            (output / "filler").write_bytes(bytes((1 << 20) - (1 << 13)))
        else:
            output.rmdir()
            output.symlink_to(tmp_path / "gone") if kind == "vanished" else output.write_text("")
        assert cli.main([]) == 1
        assert str(output) in capsys.readouterr().err
        assert not list(output.glob("run/*")) or {p.name for p in output.glob("run/*")} <= {"curve.csv"}


def test_two_studies_at_once_in_one_folder(study):
    study.forget()
    other = chaos.Study(
        study.folder,
        ["results/other/runs/mlp-numpy/seed-0/run.json"],
        OVERLAY | {"study": "other"},
    )
    other.start()
    assert other.await_job()
    study.start()
    study.finish()
    assert other.process.wait() == 0, other.log.read_text()
