"""What is written in a study's folder is noticed when it is altered, by whoever reads it; and who may hold a lock."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from runs import obtain, settings

from cifar_report.base import files
from cifar_report.base.errors import InputError
from cifar_report.cli import main
from cifar_report.runs import store

TEXTS = {
    "a.json": '{"a": 0.5}\n',
    "deep/er/a.csv": "variant,x\na,0.5\n",
    "search/s/selected.yaml": "settings: {a: 0.5}\n",
}
READERS = {".json": files.read_json, ".csv": files.read_table, ".yaml": files.read_yaml}
DAMAGES = {
    "one digit": lambda text: text.replace("5", "6"),
    "cut": lambda text: text[:-3],
    "emptied": lambda _: "",
    "null": lambda _: "null",
    "list": lambda _: "[]",
    "foreign": lambda text: text.encode("utf-16"),
    "folder": lambda _: None,
}


@pytest.fixture
def study(tmp_path):
    files.write_text(tmp_path / "study/plan/config.yaml", "study: a\n")
    for name, text in TEXTS.items():
        files.write_text(tmp_path / "study" / name, text)
    return tmp_path / "study"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_reader_refuses_by_name_what_was_altered(study, name, damage):
    path = study / name
    read = READERS[path.suffix]
    whole = read(path)
    content = DAMAGES[damage](TEXTS[name])
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"was altered since it was made, .*; call Snakemake again") as error:
        read(path)
    assert str(path) in str(error.value)
    if content is not None:
        files.write_text(path, TEXTS[name])
        assert np.all(read(path) == whole)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)), "b: 1"]
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("a.json", f"{'[' * deep}{']' * deep}") for deep in (60, 500, 100_000)),
        ("a.json", '{"a":' * 60 + "0" + "}" * 60),
        *(("a.yaml", f"{'[' * deep}{']' * deep}") for deep in (60, 3000)),
        ("a.yaml", LAUGHS),
        (
            "a.yaml",
            LAUGHS.replace("[x, x]", "{x: 1}").replace("[*", "{<<: [*").replace("]", "]}").replace("1}]}", "1}"),
        ),
        ("a.yaml", "a: &a [*a]"),
    ],
)
def test_what_is_too_deep_or_too_large_is_refused(tmp_path, name, text):
    """Whatever would meet it later calls itself for each level, or for each alias."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name}: expected \w+, found something else \((expected at most|max|while)"):
        READERS[Path(name).suffix](tmp_path / name)


def test_as_deep_as_any_document_of_the_project_is_is_read(tmp_path):
    text = f"{'[' * 40}{']' * 40}"
    for name in ("a.json", "a.yaml"):
        (tmp_path / name).write_text(text)
        assert READERS[Path(name).suffix](tmp_path / name) == json.loads(text)


def test_digests_are_kept_as_sha256sum_has_them(study):
    kept = sorted((study / ".sha256").rglob("*"))
    lines = {path.read_text() for path in kept if path.is_file()}
    assert lines >= {f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in TEXTS.items()}
    (study / "b.pdf").write_bytes(b"by another program")
    assert not files.is_altered(study / "b.pdf")
    assert main(["keep-digests", str(study / "b.pdf")]) == 0
    (study / "b.pdf").write_bytes(b"by nobody")
    assert files.is_altered(study / "b.pdf")


def test_a_plan_that_was_damaged_is_written_again(study):
    path = study / "plan/stages/tables.json"
    for content in (None, b"[]", "é".encode("latin-1")):
        if content:
            path.write_bytes(content)
        files.write_text_if_changed(path, '{"settings": {}}\n')
        assert json.loads(path.read_text()) == files.read_json(path) == {"settings": {}}


def test_what_another_program_reads_is_compared_first(study, capsys):
    """As LaTeX does. A digest that cannot be read counts as another one."""
    call = ["check-digests", *(str(study / name) for name in TEXTS)]
    assert main(call) == 0
    (study / "deep/er/a.csv").write_text("variant,x\na,0.6\n")
    assert main(call) == 1 and "deep/er/a.csv: was altered" in capsys.readouterr().err
    kept = study / ".sha256/a.json"
    kept.unlink()
    kept.mkdir()
    assert files.is_altered(study / "a.json") and study / "a.json" in files.digested(study)
    files.write_text(study / "a.json", TEXTS["a.json"])
    assert not files.is_altered(study / "a.json")


def test_outside_of_a_study_no_digest_is_kept(tmp_path):
    files.write_text(tmp_path / "store/run.json", "{}")
    (tmp_path / "store/run.json").write_text("[]")
    assert files.read_json(tmp_path / "store/run.json") == [] and not list(tmp_path.rglob(".sha256"))


# --- locks ------------------------------------------------------------------------------------------------------------


def test_only_a_file_of_one_name_is_a_lock(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "hard").hardlink_to(target)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "hard", "folder", "pipe"):
        with pytest.raises(InputError, match=f"{name}: expected a file to lock, found a link, .*; remove it"):
            files.take_lock(tmp_path / name)
    assert target.read_text() == "mine"


def test_what_is_no_folder_holds_no_lock(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "link"):
        with pytest.raises(InputError, match=f"{name}: expected a folder, found something else; remove it"):
            files.take_lock(tmp_path / name / "lock")


def test_a_lock_that_was_removed_while_one_waited_lets_no_two_in(tmp_path):
    """The waiting one gets a lock that a third one then meets, not the removed file's, which nobody else would."""
    path, taken = tmp_path / "home/lock", []
    first = files.take_lock(path)
    waiting = threading.Thread(target=lambda: taken.append(files.take_lock(path)))
    waiting.start()
    while not _waits(path):
        pass
    path.unlink()
    path.parent.rmdir()
    first.close()
    waiting.join(10)
    assert taken and files.take_lock(path, wait=False) is None


def _waits(path):
    """Whether Linux has a process wait for the lock."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{path.stat().st_ino} " in line for line in lines)


def test_a_finished_run_is_read_without_a_lock(dataset, tmp_path):
    """As from a store that cannot be written: here no lock can be taken, since a folder lies in its place."""
    small = settings(steps=2, evaluate_every=1)
    finished = obtain(small, 0, dataset, tmp_path)
    (finished.parent / "lock").unlink()
    (finished.parent / "lock").mkdir()
    assert obtain(small, 0, dataset, tmp_path) == finished
    with pytest.raises(InputError, match="expected a file to lock"), store.locked(finished.parent):
        pass


@pytest.mark.parametrize("content", ["[]", "null", "", "{}", '{"identity": 3}', "\ud800"])
def test_a_damaged_run_of_the_store_is_refused_with_its_folder(dataset, tmp_path, content):
    small = settings(steps=2, evaluate_every=1)
    finished = obtain(small, 0, dataset, tmp_path)
    (finished / "run.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(
        InputError, match=r"expected a finished run, found a damaged one .*; remove this folder"
    ) as error:
        obtain(small, 0, dataset, tmp_path)
    assert str(finished) in str(error.value)


def test_the_lock_is_for_one_process_at_a_time(tmp_path):
    with files.take_lock(tmp_path / "lock"):
        code = f"from cifar_report.base.files import *; print(take_lock(Path({str(tmp_path / 'lock')!r}), wait=False))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for said in (b"\xff\xfe", b"process 1 on elsewhere"):
            (tmp_path / "lock").write_bytes(said)
            assert files.lock_holder(tmp_path / "lock") == f"process {os.getpid()} on {socket.gethostname()}"
    assert done.stdout == "None\n"
