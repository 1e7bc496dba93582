"""Finished runs go to another machine and are taken there; what differs is named and refused."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from runs import obtain, requested, settings
from safetensors.numpy import load, save

from cifar_report import cli
from cifar_report.base.files import read_json, to_json, write_text
from cifar_report.data import datasets
from cifar_report.runs import consistency, store
from cifar_report.runs.consistency import contradiction
from cifar_report.runs.exchange import export, import_runs
from cifar_report.runs.record import record_digest
from cifar_report.study.identity import code_digest, run_identity
from cifar_report.study.settings import Settings

SETTINGS = settings(steps=4, slope=0.02)
CODE = code_digest("numpy-mlp")
SEARCH = {"grid": {"hidden": [[5], [6]]}, "trials": ["0123456789abcdef"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with results/small (two seeds and a trial, a third seed not yet trained) and results/.store."""
    folder = tmp_path_factory.mktemp("trained")
    results = folder / "results/small"
    datasets.prepare("digits", {"source": "digits"}, 200, results / "dataset", folder)
    data = datasets.load(results / "dataset")
    stages = {
        "summarise": {"variants": [{"name": "mlp", "seeds": [0, 1, 2]}]},
        "search": {"mlp-grid": SEARCH},
    }
    for stage, part in stages.items():
        write_text(results / f"plan/stages/{stage}.json", to_json({"settings": part}))
    plan = {"settings": SETTINGS.canonical()}
    write_text(results / "plan/mlp.json", to_json(plan | {"search": None}))
    write_text(results / "plan/search/mlp-grid/0123456789abcdef.json", to_json(plan))
    for seed in range(2):
        finished = obtain(SETTINGS, seed, data, folder / "results/.store", f"seed {seed}")
        request = requested(SETTINGS, seed, data)
        store.publish(finished, results / f"runs/mlp/seed-{seed}", request, "mlp")
    finished = obtain(SETTINGS, 9, data, folder / "results/.store", "trial", test=False)
    trial = requested(SETTINGS, 9, data, test=False)
    store.publish(finished, results / "search/mlp-grid/0123456789abcdef", trial, "mlp-grid-012345")
    return folder


@pytest.fixture(scope="module")
def exported(trained):
    path = trained / "runs.tar"
    assert export(trained / "results/small", trained / "results/.store", path) == (3, 1)
    return path


def repacked(exported, path, edit):
    """The export with its members changed: `edit` takes and returns a dict of name and content."""
    with tarfile.open(exported) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    with tarfile.open(path, "w") as archive:
        for name, content in edit(members).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def edited(change):
    """Members with each run.json changed, its identity made to fit unless that is the change."""

    def edit(members):
        out = {}
        for name, content in members.items():
            folder, _, file = name.partition("/")
            run = json.loads(members[f"{folder}/run.json"])
            change(run)
            run["sha256"] = record_digest(run)
            out[f"{run['identity']}/{file}"] = to_json(run).encode() if file == "run.json" else content
        return out

    return edit


def identified(run):
    settings = Settings.from_mapping(run["settings"])
    run["identity"] = run_identity(settings, run["seed"], run["data"]["digests"], run["code"])


def test_a_trials_weights_stay_in_the_store(trained, tmp_path):
    data = datasets.load(trained / "results/small/dataset")
    finished = obtain(SETTINGS, 9, data, trained / "results/.store", "trial", test=False)
    store.publish(finished, tmp_path / "trial", requested(SETTINGS, 9, data, test=False), "trial")
    assert (finished / "model.safetensors").is_file()
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == ["curve.csv", "run.json"]


def test_an_export_has_the_same_bytes_twice(trained, exported, tmp_path):
    export(trained / "results/small", trained / "results/.store", tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()


def test_imported_runs_are_taken_without_training(trained, exported, tmp_path, monkeypatch):
    """On the command line, twice; then the store gives them out, byte by byte, and trains nothing."""
    call = ["import-runs", str(exported), "--store", str(tmp_path), "--results", str(trained / "results/small")]
    assert cli.main(call) == 0
    counts, refused = import_runs(exported, tmp_path)
    assert (dict(counts), refused) == ({"already there": 3}, [])
    monkeypatch.setattr(store, "_train", None)
    data = datasets.load(trained / "results/small/dataset")
    for seed, test in ((0, True), (1, True), (9, False)):
        finished = obtain(SETTINGS, seed, data, tmp_path, "taken", test)
        original = trained / "results/.store" / finished.parent.name / "finished"
        assert {p.name: p.read_bytes() for p in finished.iterdir()} == {
            p.name: p.read_bytes() for p in original.iterdir()
        }
    assert [path.name for path in tmp_path.glob(".import*/*")] == ["lock"]


def test_what_a_killed_import_left_is_removed(exported, tmp_path):
    code = "import os, sys; from pathlib import Path; from cifar_report.runs import exchange; "
    code += "exchange._verify = lambda *_: os.kill(os.getpid(), 9); exchange.import_runs(*map(Path, sys.argv[1:]))"
    killed = subprocess.run([sys.executable, "-c", code, str(exported), str(tmp_path)], check=False)
    assert killed.returncode == -9 and len(list(tmp_path.glob(".import/runs/*"))) == 3
    import_runs(exported, tmp_path)
    assert [path.name for path in tmp_path.glob(".import*/*")] == ["lock"]


def settings_changed(run):
    run["settings"]["steps"] = 5


def other_study(run):
    run["settings"]["steps"] = 5
    identified(run)


def other_code(run):
    run["code"] = "0" * 64
    identified(run)


def other_data(run):
    run["data"]["digests"]["train-images"] = "0" * 64
    identified(run)


def unknown_setting(run):
    run["settings"]["lookahead"] = True


def other_seed(run):
    run["seed"] += 1


def no_seed(run):
    del run["seed"]


def other_status(run):
    run["status"], run["step"], run["samples_seen"] = "completed", 1, run["settings"]["batch_size"]


def other_accuracy(run):
    run["final"]["validation"]["accuracy"] += 0.01


def other_samples(run):
    run["samples_seen"] += 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_status, "run.json: status completed, but step 1 of 4"),
        (other_accuracy, "curve.csv: its last step is not that of run.json"),
        (other_samples, "run.json: samples_seen: expected 128"),
        (settings_changed, "identity: is not that of its settings"),
        (other_seed, "identity: is not that of its settings, seed"),
        (other_study, "settings: steps: differ"),
        (other_code, "code: what trains a numpy-mlp differs"),
        (other_data, "data: train-images: the run of 'digits'"),
        (unknown_setting, "settings: this checkout does not know them"),
        (no_seed, ": run.json: 'seed' is missing"),
    ],
)
def test_what_differs_is_named_and_refused(trained, exported, tmp_path, change, named):
    changed = repacked(exported, tmp_path / "changed.tar", edited(change))
    counts, refused = import_runs(changed, tmp_path / "store", trained / "results/small")
    assert not counts and len(refused) == 3
    for message in refused:
        assert named in message
    assert not list(tmp_path.glob("store/*/finished"))


def test_one_altered_file_stops_its_run_alone(exported, tmp_path, capsys):
    def alter(members):
        name = next(name for name in members if name.endswith("model.safetensors"))
        return members | {name: members[name][:-1] + b"?"}

    path = repacked(exported, tmp_path / "altered.tar", alter)
    assert cli.main(["import-runs", str(path), "--store", str(tmp_path / "store")]) == 1
    told = capsys.readouterr()
    assert "2 run(s) imported" in told.out and "model.safetensors: expected SHA-256" in told.err


def with_files(change, which=lambda folder, members: f"{folder}/test-logits.npy" in members):
    """Members where runs, those with logits, are changed; identity and digests in run.json are made to fit."""

    def edit(members):
        out = dict(members)
        for folder in {name.partition("/")[0] for name in members if which(name.partition("/")[0], members)}:
            files = {file: out.pop(f"{folder}/{file}") for file in store.RUN_FILES if f"{folder}/{file}" in out}
            run = json.loads(out.pop(f"{folder}/run.json"))
            change(run, files)
            run["digests"] = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
            run["sha256"] = record_digest(run)
            files["run.json"] = json.dumps(run).encode()
            out |= {f"{folder}/{file}": content for file, content in files.items()}
        return out

    return edit


def logits(change):
    def edit(run, files):
        file = io.BytesIO()
        np.save(file, change(np.load(io.BytesIO(files["test-logits.npy"]))))
        files["test-logits.npy"] = file.getvalue()

    return edit


def weights(change):
    return lambda run, files: files.update({"model.safetensors": save(change(load(files["model.safetensors"])))})


def curve(old, new):
    """A pattern of curve.csv, which must be there, replaced."""

    def edit(run, files):
        text, count = re.subn(old, new, files["curve.csv"].decode())
        assert count
        files["curve.csv"] = text.encode()

    return edit


def told(**changes):
    return lambda run, files: run.update(changes)


def final(split, metric, change):
    """A value of `final`, and of the curve's last step, so that these go together."""

    def edit(run, files):
        before, after = run["final"][split][metric], change(run["final"][split][metric])
        run["final"][split][metric] = after
        head, last = files["curve.csv"].decode().rsplit(f"{run['step']},{run['samples_seen']},{split},", 1)
        last = last.replace(repr(before), "" if after is None else repr(after), 1)
        files["curve.csv"] = f"{head}{run['step']},{run['samples_seen']},{split},{last}".encode()

    return edit


def without_logits(run, files):
    del files["test-logits.npy"], run["final"]["test"]


def renamed(arrays):
    return {f"x{name}": array for name, array in arrays.items()}


def no_file(name, content):
    return lambda run, files: files.update({name: content})


CONTRADICTIONS = {
    "other order": (logits(lambda x: x[::-1]), "test-logits.npy: its logits give the test loss"),
    "a row lost": (logits(lambda x: x[1:]), "test-logits.npy: expected float32 logits, a row for each of 360 test"),
    "columns more": (logits(lambda x: np.pad(x, ((0, 0), (0, 3)), constant_values=-1e9)), "of shape (360, 13)"),
    "float64": (logits(lambda x: x.astype(np.float64)), "found float64"),
    "no array": (no_file("test-logits.npy", b"garbage"), "test-logits.npy: expected a file of logits"),
    "half a header": (no_file("test-logits.npy", b"\x93NUMPY\x01\x00v\x00{'descr"), "expected a file of logits"),
    "a pickle": (logits(lambda x: np.array([{}], object)), "test-logits.npy: expected a file of logits"),
    "no logits": (without_logits, "run.json: digests: expected those of curve.csv"),
    "no numbers": (weights(lambda w: {n: a * np.nan for n, a in w.items()}), "values that are no numbers"),
    "other names": (weights(renamed), "model.safetensors: linear.0.bias: expected float32 of shape (5,)"),
    "transposed": (weights(lambda w: {n: np.ascontiguousarray(a.T) for n, a in w.items()}), "found float32 of shape"),
    "wider": (weights(lambda w: {n: a.astype(np.float64) for n, a in w.items()}), "found float64 of shape"),
    "other weights": (
        weights(lambda w: {n: -a for n, a in w.items()}),
        "run.json: final: train: accuracy",
    ),
    "train accuracy": (final("train", "accuracy", lambda x: 1.0), "run.json: final: train: accuracy"),
    "validation accuracy": (final("validation", "accuracy", lambda _: 1.0), "run.json: final: validation: accuracy"),
    "validation loss": (final("validation", "loss", lambda x: x / 2), "run.json: final: validation: loss"),
    "no weights": (no_file("model.safetensors", b"no weights"), "model.safetensors: cannot be read"),
    "test loss": (final("test", "loss", lambda x: x * 1.00009), "its logits give the test loss"),
    "an image more": (final("test", "accuracy", lambda x: x + 1 / 360), "its logits give the test loss"),
    "part of an image": (final("train", "accuracy", lambda x: x + 1e-4), "no whole number of images"),
    "a loss that is none": (final("train", "loss", lambda _: None), "run.json: status completed"),
    "diverged": (told(status="diverged"), "run.json: status diverged"),
    "samples of the curve": (curve(r"(?m)^2,64,", "2,65,"), "curve.csv: expected a row each 2 steps"),
    "rows lost": (curve(r"(?m)^2,64,.*\n", ""), "curve.csv: expected a row each 2 steps"),
    "first accuracy": (curve(r"(?m)^(0,0,train,.*),.*$", r"\1,0.123456"), "no whole number of images"),
    "threads": (told(threads=99), "run.json: threads: expected 1"),
    "parameters": (told(parameters=7), "run.json: parameters: expected"),
    "operations": (told(forward_flops=0), "run.json: forward_flops: expected"),
    "subsets": (told(evaluation_subsets={}), "run.json: evaluation_subsets: expected"),
    "no device": (lambda run, files: run.pop("device"), ": run.json: 'device' is missing"),
    "a study's name": (told(variant="../../x"), "run.json: unknown key 'variant' = '../../x'"),
    "a key too many": (lambda run, files: run["device"].update(x=1), "run.json: device: unknown key 'x'"),
    "half a letter": (lambda run, files: run["device"].update(cpu="\ud800"), "run.json: device.cpu: '\\ud800' holds a"),
    "a NUL": (lambda run, files: run["versions"].update(numpy="2\0"), "run.json: versions.numpy: '2\\x00' holds a"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_can_be_recomputed_is(trained, exported, tmp_path, case):
    """A run whose digests fit, and whose files contradict each other, never enters the store."""
    change, named = CONTRADICTIONS[case]
    changed = repacked(exported, tmp_path / "changed.tar", with_files(change))
    counts, refused = import_runs(changed, tmp_path / "store", trained / "results/small")
    assert (counts["imported"], len(refused)) == (1, 2)  # the trial has no logits, and was not changed
    assert all(named in message for message in refused)


@pytest.mark.parametrize("work", [consistency.WORK, 0], ids=["whole splits", "a draw"])
def test_logits_are_those_of_the_weights_in_any_row(trained, exported, tmp_path, monkeypatch, work):
    """Loss and accuracy are the same where rows of one class change places, at whichever end."""
    monkeypatch.setattr(consistency, "WORK", work)
    labels = np.load(trained / "results/small/dataset/test-labels.npy")
    order = np.arange(len(labels))
    for members in (np.flatnonzero((labels == label) & (order >= consistency.SHOWN)) for label in range(10)):
        order[members] = np.roll(members, 1)
    changed = repacked(exported, tmp_path / "changed.tar", with_files(logits(lambda x: x[order])))
    _, refused = import_runs(changed, tmp_path / "store", trained / "results/small")
    assert len(refused) == 2 and all("its weights give other logits of " in message for message in refused)


@pytest.mark.parametrize("work", [consistency.WORK, 0], ids=["whole splits", "a draw"])
@pytest.mark.parametrize(
    "change",
    [final("validation", "accuracy", lambda _: 1.0), weights(lambda w: {n: 0 * a for n, a in w.items()})],
    ids=["accuracy", "weights"],
)
def test_a_trial_is_chosen_by_what_its_weights_answer(trained, exported, tmp_path, monkeypatch, work, change):
    monkeypatch.setattr(consistency, "WORK", work)
    edit = with_files(change, lambda folder, members: f"{folder}/test-logits.npy" not in members)
    changed = repacked(exported, tmp_path / "changed.tar", edit)
    counts, refused = import_runs(changed, tmp_path / "store", trained / "results/small")
    assert (counts["imported"], len(refused)) == (2, 1) and "its weights have 0." in refused[0]


def test_a_run_that_diverged_is_taken(dataset, tmp_path):
    wild = settings(steps=6, learning_rate=1e6)
    finished = obtain(wild, 0, dataset, tmp_path / "store")
    run = read_json(finished / "run.json")
    assert run["status"] == "diverged"
    assert contradiction(finished, run, dataset, dataset.split("test")[1]) == ""


@pytest.mark.parametrize("kind", ["torch-mlp", "torch-vgg"])
def test_runs_of_pytorch_are_taken(dataset, tmp_path, kind):
    averaged = {"average_decay": 0.9, "batch_norm": "torch", "train_on": "train+validation"}
    chosen = settings(steps=3, kind=kind, hidden=(5,) if kind == "torch-mlp" else (), **averaged)
    finished = obtain(chosen, 0, dataset, tmp_path / "store")
    assert contradiction(finished, read_json(finished / "run.json"), dataset, dataset.split("test")[1]) == ""


@pytest.mark.parametrize("lost", ["curve.csv", "run.json"])
def test_a_missing_file_is_named(exported, tmp_path, lost):
    path = repacked(exported, tmp_path / "x.tar", lambda m: {k: v for k, v in m.items() if not k.endswith(lost)})
    counts, refused = import_runs(path, tmp_path / "store")
    assert not counts and all(lost in message for message in refused)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "0" * 64 + "/../../evil", "0" * 64 + "/finished/run.json", "0" * 64 + "/extra.bin"]
)
def test_only_the_files_of_runs_are_unpacked(exported, tmp_path, name):
    path = repacked(exported, tmp_path / "x.tar", lambda members: members | {name: b"evil"})
    assert cli.main(["import-runs", str(path), "--store", str(tmp_path / "a/b/store")]) == 1
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_links_and_devices_are_refused(tmp_path, kind, capsys):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("0" * 64 + "/run.json")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert cli.main(["import-runs", str(tmp_path / "x.tar"), "--store", str(tmp_path / "store")]) == 1
    assert "x.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no tar" * 200,
        lambda content: content[: len(content) // 2],
        lambda content: content.rstrip(b"\0")[:-100],
        lambda content: content[: len(content.rstrip(b"\0")) // 512 * 512],
    ],
)
def test_a_damaged_file_is_refused_whole(exported, tmp_path, damage, capsys):
    path = tmp_path / "x.tar"
    path.write_bytes(damage(exported.read_bytes()))
    assert cli.main(["import-runs", str(path), "--store", str(tmp_path / "store")]) == 1
    assert str(path) in capsys.readouterr().err
    assert not list(tmp_path.glob("store/*/finished"))


def test_a_damaged_header_is_not_the_end(exported, tmp_path, capsys):
    with tarfile.open(exported) as archive:
        offset = archive.getmembers()[5].offset
    content = exported.read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:offset] + b"\xff" * 512 + content[offset + 512 :])
    assert cli.main(["import-runs", str(tmp_path / "x.tar"), "--store", str(tmp_path / "store")]) == 1
    assert "its end is missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["result", "pipe", "link", "folder", "other tar"])
def test_an_export_takes_no_place_of_another_file(trained, exported, tmp_path, capsys, kind):
    """But that of an earlier export, and of a file without content."""
    output = tmp_path / "x.tar"
    match kind:
        case "result":
            output.write_text("variant,accuracy\n")
        case "pipe":
            os.mkfifo(output)
        case "link":
            output.symlink_to(exported)
        case "folder":
            output.mkdir()
        case "other tar":
            with tarfile.open(output, "w") as archive:
                archive.addfile(tarfile.TarInfo("thesis.tex"))
    before = os.lstat(output)
    call = ["export-runs", "--results", str(trained / "results/small"), "--store", str(trained / "results/.store")]
    assert cli.main([*call, "--output", str(output)]) == 1
    assert f"{output}: expected no file or an earlier export, found something else" in capsys.readouterr().err
    assert (before.st_ino, before.st_mtime_ns) == (os.lstat(output).st_ino, os.lstat(output).st_mtime_ns)
    again = tmp_path / "again.tar"
    again.touch()
    for _ in range(2):
        assert cli.main([*call, "--output", str(again)]) == 0


def test_nothing_to_export_and_lost_files_are_named(trained, tmp_path, capsys):
    results = tmp_path / "small"
    shutil.copytree(trained / "results/small", results)
    call = ["export-runs", "--results", str(results), "--store", str(tmp_path), "--output", str(tmp_path / "x.tar")]
    assert cli.main(call) == 1
    assert "finished/run.json: expected a JSON file, found none" in capsys.readouterr().err
    shutil.copytree(trained / "results/.store", tmp_path, dirs_exist_ok=True)
    lost = next(tmp_path.glob("*/finished/test-logits.npy"))
    lost.unlink()
    assert cli.main(call) == 1
    assert f"{lost}: expected a file of a finished run, found none; remove that folder" in capsys.readouterr().err
    for path in results.rglob("run.json"):
        path.unlink()
    assert cli.main(call) == 1
    assert "expected finished runs to export, found none" in capsys.readouterr().err
    assert not Path(tmp_path / "x.tar").exists()


def test_a_study_calls_a_run_by_its_own_name(trained, tmp_path):
    data = datasets.load(trained / "results/small/dataset")
    request, folder = requested(SETTINGS, 0, data), tmp_path / "finished"
    shutil.copytree(trained / "results/.store" / request.identity / "finished", folder)
    write_text(folder / "run.json", to_json(read_json(folder / "run.json") | {"variant": "other"}))
    store.publish(folder, tmp_path / "runs/mlp/seed-0", request, "mlp")
    assert read_json(tmp_path / "runs/mlp/seed-0/run.json")["variant"] == "mlp"


def test_the_record_names_the_code_that_trained_it(trained):
    assert read_json(trained / "results/small/runs/mlp/seed-0/run.json")["code"] == CODE
