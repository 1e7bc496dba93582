"""Runs are forgotten on purpose, all of a variant's, and nothing else ever is."""

import json
import os
import shutil
import socket

import pytest
from runs import requested, settings

from cifar_report.base.files import to_json
from cifar_report.cli import main
from cifar_report.runs import store

SMALL = settings(steps=2, evaluate_every=1)


@pytest.fixture
def study(dataset, tmp_path):
    """A variant with three seeds, of which two are published, and another one; and the call that forgets the first."""
    results, kept = tmp_path / "results", store.Store(tmp_path / "store")
    for seed, chosen, name in ((0, SMALL, "mlp"), (1, SMALL, "mlp"), (2, SMALL, ""), (0, settings(steps=3), "other")):
        request = requested(chosen, seed, dataset)
        finished = kept.obtain(request)
        if name:
            store.publish(finished, results / f"runs/{name}/seed-{seed}", request, name)
    (results / "plan/stages").mkdir(parents=True)
    document = {"search": None, "settings": SMALL.canonical(), "code": requested(SMALL, 0, dataset).code}
    (results / "plan/mlp.json").write_text(to_json(document))
    variants = [{"name": "mlp", "seeds": [0, 1, 2, 3]}]
    (results / "plan/stages/summarise.json").write_text(to_json({"settings": {"variants": variants}}))
    (results / "dataset").mkdir()
    shutil.copy2(dataset.folder / "dataset.json", results / "dataset")
    call = ["forget", "mlp", "--results", str(results), "--store", str(tmp_path / "store")]
    return results, tmp_path / "store", call


def stored(folder):
    return {json.loads(path.read_text())["settings"]["steps"] for path in folder.glob("*/finished/run.json")}


def test_all_seeds_of_a_variant_are_forgotten_published_or_not(study, capsys):
    results, folder, call = study
    (results / "summary.csv").write_text("")
    assert main(call) == 0
    assert stored(folder) == {3} and len(list(folder.glob("*/finished"))) == 1
    assert [path.name for path in (results / "runs").glob("*/seed-*")] == ["seed-0"]
    assert not (results / "summary.csv").exists()
    assert main(call) == 1 and "name a variant that has run" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["published", "stored"])
def test_a_folder_that_is_a_link_is_named_and_nothing_is_forgotten(study, tmp_path, capsys, which):
    results, folder, call = study
    run = results / "runs/mlp/seed-1"
    linked = run if which == "published" else folder / json.loads((run / "run.json").read_text())["identity"]
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(call) == 1
    assert f"{linked}: expected a run's own folder, found a link" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("lost", ["plan/mlp.json", "plan/stages/summarise.json", "dataset/dataset.json", "selected"])
def test_where_seeds_trained_ahead_are_not_known_nothing_is_forgotten(study, tmp_path, capsys, lost):
    results, _, call = study
    if lost == "selected":
        lost, document = "search/grid/selected.yaml", json.loads((results / "plan/mlp.json").read_text())
        (results / "plan/mlp.json").write_text(to_json(document | {"search": "grid"}))
    else:
        (results / lost).unlink()
    before = sorted(tmp_path.rglob("*"))
    assert main(call) == 1
    assert f"{lost}: expected it, which tells with others what the store may have of mlp" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("seed", [0, 2], ids=["published", "trained ahead"])
def test_while_a_run_is_trained_nothing_is_forgotten(study, capsys, seed):
    results, folder, call = study
    before = sorted(folder.rglob("*"))
    runs = {path.parents[1]: json.loads(path.read_text()) for path in folder.glob("*/finished/run.json")}
    home = next(home for home, run in runs.items() if (run["seed"], run["settings"]["steps"]) == (seed, 2))
    with store.locked(home):
        assert main(call) == 1
    assert f"process {os.getpid()} on {socket.gethostname()} trains a run now" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before and len(list(results.glob("runs/mlp/*/run.json"))) == 2


@pytest.mark.parametrize("identity", ["", ".", "..", "../x", "/", "0" * 63, "A" * 64, None, 7, ["x"]])
def test_no_path_is_made_from_what_a_run_json_says(study, tmp_path, capsys, identity):
    results, _, call = study
    path = results / "runs/mlp/seed-0/run.json"
    path.write_text(to_json(json.loads(path.read_text()) | {"identity": identity}))
    before = sorted(tmp_path.rglob("*"))
    assert main(call) == 1
    assert "identity: expected 64 hexadecimal digits" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def another_identity(run, other):
    run["identity"] = other["identity"]


def another_run(run, other):
    run.update(other | {"variant": run["variant"]})


@pytest.mark.parametrize("change", [another_identity, another_run])
def test_what_another_variant_trained_is_not_forgotten(study, tmp_path, capsys, change):
    """Whatever a run.json says, with a digest of its own that fits or not: what is deleted is what the plan has."""
    results, _, call = study
    path = results / "runs/mlp/seed-0/run.json"
    run = json.loads(path.read_text())
    change(run, json.loads((results / "runs/other/seed-0/run.json").read_text()))
    path.write_text(to_json(run))
    before = sorted(tmp_path.rglob("*"))
    assert main(call) == 1
    assert "mlp/seed-0/run.json: expected the run of mlp, seed-0" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../runs/mlp", "../../results/runs/mlp", ".", "mlp/", ""])
def test_a_path_is_no_variant(study, tmp_path, capsys, name):
    before = sorted(tmp_path.rglob("*"))
    assert main(["forget", name, *study[2][2:]]) == 1
    assert "name a variant that has run" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
