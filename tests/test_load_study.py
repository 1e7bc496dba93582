"""`load_study`: the same numbers as in the files, the message where one is missing, and the notebook of the docs."""

import copy
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from runs import CURVE

import cifar_report
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_table, sha256, to_json

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "reference/cifar10-jpeg"


@pytest.fixture(scope="module")
def study():
    return cifar_report.load_study(REFERENCE)


@pytest.fixture
def small(tmp_path):
    """One run of the reference, with logits and a plan that wants a second seed."""
    run = tmp_path / "runs/mlp-best/seed-1"
    shutil.copytree(REFERENCE / "runs/mlp-best/seed-1", run)
    np.save(run / "test-logits.npy", np.eye(10, dtype=np.float32))
    record = json.loads((run / "run.json").read_text())
    record["digests"]["test-logits.npy"] = sha256(run / "test-logits.npy")
    del record["sha256"]
    (run / "run.json").write_text(to_json(record))
    variants = [{"name": "mlp-best", "seeds": [1, 2]}, {"name": "vgg", "seeds": [0]}]
    stage = {"settings": {"variants": variants}}
    (tmp_path / "plan/stages").mkdir(parents=True)
    (tmp_path / "plan/stages/summarise.json").write_text(to_json(stage))
    return tmp_path


def test_a_row_a_run(study):
    records = {
        (record["variant"], record["seed"]): record
        for record in (json.loads(path.read_text()) for path in REFERENCE.glob("runs/*/*/run.json"))
    }
    table = study.runs.set_index(["variant", "seed"])
    assert len(table) == len(records) and set(table.index) == set(records)
    for key, record in records.items():
        row = table.loc[key]
        assert row["test_accuracy"] == record["final"]["test"]["accuracy"]
        assert row["learning_rate"] == record["settings"]["learning_rate"]
        assert (row["seconds"], row["device"], row["numpy"]) == (record["seconds"], "AMD EPYC", "2.4.6")
    assert table.loc[("mlp-best", 0), "hidden"] == "500-500-500"
    assert np.isnan(table.loc[("vgg", 0), "validation_accuracy"])  # it was trained on these images


def test_a_row_an_evaluation(study):
    rows = []
    for path in sorted(REFERENCE.glob("runs/*/*/curve.csv")):
        with path.open() as file:
            rows += [
                (path.parts[-3], int(path.parts[-2][5:]), int(r["step"]), r["split"], float(r["loss"]))
                for r in csv.DictReader(file)
            ]
    assert list(study.curves) == ["variant", "seed", "step", "samples_seen", "split", "loss", "accuracy"]
    found = study.curves[["variant", "seed", "step", "split", "loss"]]
    assert sorted(found.itertuples(index=False, name=None)) == sorted(rows)


def test_tables_and_claims(study):
    accuracies = study.runs.groupby("variant")["test_accuracy"].mean()
    summary = study.summary.set_index("variant")["test_accuracy_mean"]
    np.testing.assert_allclose(summary, accuracies[summary.index], rtol=1e-12)
    assert set(study.costs["variant"]) == set(summary.index)
    selected = study.search[study.search["selected"] & (study.search["search"] == "mlp-grid")]
    assert list(selected["hidden"]) == ["500-500-500"] * 3
    verdicts = {claim["id"]: claim["verdict"] for claim in json.loads((REFERENCE / "claims.json").read_text())}
    assert study.claims.set_index("id")["verdict"].to_dict() == verdicts
    rows = len((REFERENCE / "flips.csv").read_text().splitlines()) - 1
    assert len(study.flips) == rows > 10 and set(study.shifts["shift"]) == {0, 1, 2, 3, 4}


def test_an_unfinished_study_has_the_runs_of_its_plan_that_are_there(small):
    shutil.copytree(REFERENCE / "runs/vgg-160k", small / "runs/vgg-160k")  # of another plan
    loaded = cifar_report.load_study(str(small))
    assert list(zip(loaded.runs["variant"], loaded.runs["seed"], strict=True)) == [("mlp-best", 1)]
    assert loaded.logits("mlp-best", 1).shape == (10, 10)
    with pytest.raises(InputError, match=r"summary\.csv: expected a file of the study"):
        _ = loaded.summary
    with pytest.raises(InputError, match="seed-2: expected a finished run"):
        loaded.logits("mlp-best", 2)


def test_estimates_are_numbers_also_where_no_claim_could_be_tested(small):
    claims = [c for c in json.loads((REFERENCE / "claims.json").read_text()) if c["ci95_low"] is None]
    (small / "claims.json").write_text(to_json(claims))
    found = cifar_report.load_study(small).claims
    assert found["ci95_low"].dtype == np.float64 and np.isnan(found["ci95_low"][0]) and found["estimate"][0] > 0


def test_labels_are_those_of_the_dataset(small):
    from cifar_report.data import datasets

    datasets.prepare("digits", {"source": "digits"}, 100, small / "dataset", small)
    labels = cifar_report.load_study(small).labels
    np.testing.assert_array_equal(labels, np.load(small / "dataset/test-labels.npy"))


@pytest.mark.parametrize(
    "damage,message",
    [
        ("run.json", r"run\.json: expected JSON"),
        ("curve.csv", r"curve\.csv: expected the columns"),
        ("nothing", "runs: expected finished runs, found none"),
        ("claims.json", r"claims\.json: expected a list of claims"),
    ],
)
def test_a_damaged_file_is_named(small, damage, message):
    run = small / "runs/mlp-best/seed-1"
    if damage == "nothing":
        shutil.rmtree(run)
    elif damage == "claims.json":
        (small / damage).write_text("{}")
    else:
        (run / damage).write_text(CURVE[7:])
    with pytest.raises(InputError, match=message):
        _ = cifar_report.load_study(small).claims


def test_reference_has_no_logits_and_says_so(study):
    with pytest.raises(InputError, match=r"test-logits\.npy: expected a file of the study, found none"):
        study.logits("vgg", 0)


def test_the_package_alone_imports_nothing():
    code = "import sys, cifar_report; print({'numpy', 'pandas', 'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="load_studies"):
        _ = cifar_report.load_studies


def test_the_notebook_runs_and_prints_what_it_shows():
    """On the reference, as anyone can; text alone is compared, as tables look otherwise in each version of pandas."""
    path = ROOT / "docs/examples/study.ipynb"
    shown = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(copy.deepcopy(shown), timeout=100, resources={"metadata": {"path": path.parent}})
    found = client.execute()
    printed = [
        [out["text"] for cell in nb.cells for out in cell.get("outputs", ()) if "text" in out] for nb in (shown, found)
    ]
    assert printed[0] == printed[1] and "percentage points over 20 seeds" in printed[0][0]
    assert all(cell["outputs"] for cell in shown.cells if cell["cell_type"] == "code")
    assert path.stat().st_size < 150_000


def test_names_are_text_whatever_they_read_as(tmp_path):
    """As `csv` reads them; pandas takes them for numbers, booleans and missing values."""
    names = ["null", "nan", "true", "007", "1e3", "NA", "none"]
    rows = [[name, str(place), ""] for place, name in enumerate(names)]
    (tmp_path / "flips.csv").write_text("\n".join(map(",".join, [["variant", "seed", "test_loss"], *rows])))
    table = read_table(tmp_path / "flips.csv")
    assert list(table["variant"]) == names and list(table["seed"]) == list(range(7)) and table["test_loss"].isna().all()
    with (tmp_path / "flips.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == names


def test_no_table_of_names_is_read_otherwise():
    """The searches' own reader apart, which says of each column what it is."""
    readers = {path.stem for path in (ROOT / "src").rglob("*.py") if "read_csv(" in path.read_text()}
    assert readers == {"files", "searches"}
