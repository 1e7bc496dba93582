"""`verify` and `explain` on a small study written by hand: what was changed is named, and nothing else."""

import json
import os
import shutil
from base64 import urlsafe_b64encode
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs import write_run
from scipy.special import log_softmax
from snakemake.persistence.file import FilePersistence
from test_reruns import merged

from cifar_report.base import records
from cifar_report.base.errors import InputError
from cifar_report.base.files import keep_digest, sha256, to_json, write_text
from cifar_report.cli import main
from cifar_report.data import datasets
from cifar_report.inspection import explain, verify
from cifar_report.rendering import tables
from cifar_report.runs.planned import plan_of, planned_runs
from cifar_report.runs.record import read_record
from cifar_report.study import config, plan

RUN = "runs/vgg/seed-0"


def rewrite(path, **changes):
    """As a rule would that says something else: its digest is kept."""
    write_text(path, to_json(json.loads(path.read_text()) | changes))


def tabulate(stage, results):
    """Stands in for `tables.write`: what it writes follows from the summary alone."""
    (results / "tables").mkdir(exist_ok=True)
    summary = (results / "summary.csv").read_text()
    for name in (*(f"tables/{name}.tex" for name in tables.TABLES), "numbers.tex"):
        (results / name).write_text(f"{name} of {summary}")
    (results / "numbers.json").write_text(to_json({"columns": {"text": summary, "files": ["summary.csv"]}}))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    results, document = folder / "results/small", merged()
    plan.write(config.load(document), document, results / "plan")
    datasets.prepare("digits", {"source": "digits"}, 200, results / "dataset", folder)
    data = datasets.load(results / "dataset")
    labels = data.split("test")[1]
    (results / "search/mlp-grid").mkdir(parents=True)
    (results / "search/mlp-grid/selected.yaml").write_text("settings: {batch_size: 20}\n")
    (results / "summary.csv").write_text("variant\n")
    tabulate({}, results)
    rng = np.random.default_rng(0)
    for name in planned_runs(results):
        write_run(results, name, data.digests())
        path = results / name
        if name.startswith("runs/"):
            logits = rng.normal(size=(len(labels), 10)).astype(np.float32)
            np.save(path / "test-logits.npy", logits)
            loss = -log_softmax(logits.astype(float), axis=1)[np.arange(len(labels)), labels].mean()
            final = {"test": {"loss": loss, "accuracy": float((logits.argmax(1) == labels).mean())}}
            digests = {file.name: sha256(file) for file in sorted(path.iterdir()) if file.name != "run.json"}
            rewrite(path / "run.json", final=final, digests=digests)
        inputs = [f"results/small/{file}" for file in ("dataset/dataset.json", plan_of(name))]
        write_records(
            results, "train_variant", inputs, [f"results/small/{name}/{file.name}" for file in path.iterdir()]
        )
        record = json.loads((path / "run.json").read_text())
        for file in path.iterdir():
            keep_digest(file)
        kept = shutil.copytree(path, folder / "results/.store" / record["identity"] / "finished")
        del record["variant"]
        (kept / "run.json").write_text(to_json(record))
    write_records(results, "write_tables", [f"results/small/{RUN}/run.json"], ["results/small/tables/summary.tex"])
    keep_digest(results / "tables/summary.tex")
    return folder


def write_records(results, rule, inputs, outputs):
    """Snakemake's records of a job's outputs, without checksums; files are named as Snakemake names them."""
    folder = results.parent / ".records"
    folder.mkdir(exist_ok=True)
    record = {"rule": rule, "input": inputs, "input_checksums": {}, "log": [f"{outputs[0]}.log"], "job_hash": 1}
    for name in outputs:
        (folder / urlsafe_b64encode(name.encode()).decode()).write_text(json.dumps(record))


@pytest.fixture
def results(written, tmp_path, monkeypatch):
    monkeypatch.setattr(verify.tables, "write", tabulate)
    shutil.copytree(written / "results", tmp_path / "results")
    return tmp_path / "results/small"


def problems(results):
    checks = verify.recompute(results, results.parent / ".store")
    assert len(checks) > 60
    return {check.what: check.problem for check in checks if check.problem}


def flip(path):
    """One bit of the last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_study_as_it_was_made_holds(results, capsys):
    assert problems(results) == {}
    arguments = ["verify", "--results", str(results)]
    assert main(arguments) == 0
    assert "checks hold" in capsys.readouterr().out
    flip(results / RUN / "model.safetensors")
    assert main(arguments) == 1
    assert f"{RUN}/model.safetensors: was altered since it was made; delete the file" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["train-images", "validation-labels", "test-images"])
def test_a_bit_of_an_array(results, file):
    flip(results / f"dataset/{file}.npy")
    assert set(problems(results)) == {f"dataset/{file}.npy", f"dataset/{file.partition('-')[0]}"}


@pytest.mark.parametrize("file", ["model.safetensors", "curve.csv"])
def test_a_bit_of_a_run(results, file):
    flip(results / RUN / file)
    assert set(problems(results)) == {f"{RUN}/{file}"}
    (results / RUN / file).unlink()
    assert problems(results) == {
        f"{RUN}/{file}": "is missing; call Snakemake again, which makes it again where the study asks for it"
    }


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"seed": 1}, {"identity", "plan", "store"}),
        ({"identity": "0" * 64}, {"identity", "plan"}),
        ({"code": "0" * 64}, {"identity", "store"}),
        ({"final": {"test": {"loss": 1.0, "accuracy": 0.99}}}, {"accuracy", "store"}),
        ({"seconds": 1.0}, {"store"}),
        ({"settings": {}}, {"identity", "store"}),
        ({"settings": None}, {"identity", "store"}),
    ],
)
def test_a_word_of_run_json(results, change, found):
    rewrite(results / RUN / "run.json", **change)
    assert set(problems(results)) == {f"{RUN}: {name}" for name in found}


def test_a_torn_run_json_hides_nothing_else(results):
    (results / RUN / "run.json").write_text('{"variant": "vg')
    flip(results / "dataset/test-images.npy")
    found = problems(results)
    assert "dataset/test" in found and "was altered" in found[f"{RUN}: identity"]


def test_a_plan_that_has_changed(results):
    path = results / "plan/vgg.json"
    settings = json.loads(path.read_text())["settings"]
    rewrite(path, settings=settings | {"steps": 3})
    assert set(problems(results)) == {f"{RUN}: plan"}


def test_a_number_and_a_table(results):
    flip(results / "numbers.json")
    flip(results / "tables/summary.tex")
    assert set(problems(results)) == {"numbers.json", "tables/summary.tex"}


def test_the_store(results):
    homes = sorted((results.parent / ".store").iterdir())
    flip(homes[0] / "finished/curve.csv")
    (homes[1] / "finished/curve.csv").unlink()
    homes[2].rename(homes[2].with_name("0" * 64))
    names = [f".store/{home.name[:12]}" for home in homes[:2]]
    assert set(problems(results)) == {f"{names[0]}/curve.csv", f"{names[1]}: name", ".store/000000000000: name"}


def test_a_digest_that_is_missing(results):
    """Of a file that a rule made, beside others that have theirs; what no rule made has none."""
    (results / "notes.txt").write_text("mine")
    (results / ".sha256/tables/summary.tex").unlink()
    assert "no digest is kept" in problems(results).pop("tables/summary.tex")
    assert set(problems(results)) == {"tables/summary.tex"} and "notes.txt" in verify.unknown(results)
    for path in (results / ".sha256").iterdir():
        if path.name != "plan":
            shutil.rmtree(path)
    assert problems(results) == {} and "tables/summary.tex" in verify.unknown(results)  # as of an earlier version


def test_a_file_that_a_rule_made_is_gone_with_its_digest(results):
    for path in (results / "tables/summary.tex", results / ".sha256/tables/summary.tex"):
        path.unlink()
    assert problems(results)["tables/summary.tex"].startswith("is missing")


def test_the_folder_of_digests_is_none(results):
    shutil.rmtree(results / ".sha256")
    (results / ".sha256").touch()
    assert "expected the folder of the digests" in verify.recompute(results, results.parent)[0].problem
    with pytest.raises(InputError, match="was altered"):
        read_record(results / RUN / "run.json")
    with pytest.raises(InputError, match="sha256: expected a folder, in which digests are kept"):
        keep_digest(results / "summary.csv")


@pytest.mark.parametrize("path", [".", "tables/..", "../small", "../../link"])
def test_a_study_has_the_same_store_and_records_by_whatever_path(results, monkeypatch, capsys, path):
    monkeypatch.chdir(results)
    (results.parents[1] / "link").symlink_to(results)
    home, *others = (results.parent / ".store").iterdir()
    flip(home / "finished/curve.csv")
    assert main(["verify", "--results", path]) == 1
    shown = capsys.readouterr().out
    assert f".store/{home.name[:12]}/curve.csv: its SHA-256" in shown
    assert f" {1 + len(others)} finished run(s) in " in shown
    assert main(["explain", "tab:summary", "--results", path]) == 0


@pytest.mark.parametrize("question", ["verify", "forecast", "forget", "export-runs"])
def test_a_store_that_is_named_is_there(results, tmp_path, capsys, question):
    """What is printed as covered is what was read."""
    more = {"forget": ["vgg"], "export-runs": ["--output", str(tmp_path / "x.tar")]}.get(question, [])
    assert main([question, *more, "--results", str(results), "--store", str(tmp_path / "typo")]) == 1
    assert "typo: expected the folder of all runs, found none" in capsys.readouterr().err
    shutil.rmtree(results.parent / ".store")
    assert main(["verify", "--results", str(results)]) == 0
    assert "no finished run(s) in" in capsys.readouterr().out


# --- whether a file would be made again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "spoil", "sentence"),
    [
        ("run.json", None, "would not be made again: nothing that it is made from has changed since."),
        ("run.json", "unlink", "would be made again: it is missing."),
        ("run.json", "missing", f"would be made again: {RUN}/curve.csv, which is made with it, is missing."),
        ("run.json", "setting", "would be made again: steps is 3 now and was 2 (plan/vgg.json)."),
        ("run.json", "code", "would be made again: the code that computes it has changed (plan/vgg.json)."),
        (
            "curve.csv",
            "touch",
            "would be made again: plan/vgg.json is newer, and no record says that it is the same, and yet it is that "
            "run, which the store still has.",
        ),
        ("run.json", "data", "would be made again: the data are others, train-images (dataset/dataset.json)."),
        (
            "model.safetensors",
            "flip",
            "would not be made again, but was altered since it was made; delete it, and it is made again.",
        ),
    ],
)
def test_whether_and_why_a_run_would_be_made_again(results, capsys, file, spoil, sentence):
    """By records without checksums; test_reruns compares it with Snakemake."""
    for path in results.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    path, planned = results / RUN / file, results / "plan/vgg.json"
    if spoil == "unlink":
        path.unlink()
    elif spoil == "missing":
        (results / RUN / "curve.csv").unlink()
    elif spoil == "setting":
        rewrite(planned, settings=json.loads(planned.read_text())["settings"] | {"steps": 3})
    elif spoil == "code":
        rewrite(planned, code="0" * 64)
    elif spoil == "touch":
        planned.touch()
    elif spoil == "data":
        described = results / "dataset/dataset.json"
        rewrite(described, sha256=json.loads(described.read_text())["sha256"] | {"train-images": "0" * 64})
    elif spoil == "flip":
        flip(path)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert main(["explain", f"{RUN}/{file}", "--results", str(results)]) == 0
    last = capsys.readouterr().out.rpartition("\n\n")[2]
    assert " ".join(last.split()) == f"{RUN}/{file} {sentence}"


def test_what_is_made_from_a_run_that_is_missing(results, capsys):
    (results / RUN / "run.json").unlink()
    assert main(["explain", "tab:summary", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert f"{RUN}  not trained yet" in shown
    assert f"tables/summary.tex would be made again: {RUN}/run.json, which it is made from, would be: it is" in shown


def test_a_run_that_the_study_does_not_ask_for_any_more(results):
    path = results / "plan/stages/summarise.json"
    write_text(path, to_json({"settings": {"variants": []}}))
    sentence = f"{RUN}/run.json would not be made again: the study does not ask for this run any more."
    assert explain.made_again(f"{RUN}/run.json", explain.FinishedStudy(results)) == sentence


def test_a_file_of_the_plan(results, capsys):
    assert main(["explain", plan_of(RUN), "--results", str(results)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "written by every call of Snakemake" in shown and f"Made from it, and again where it changes: {RUN}/*." in shown
    )
    (results / plan_of(RUN)).write_text("{}")
    assert main(["explain", str(results / plan_of(RUN)), "--results", str(results)]) == 0
    assert "It was altered since" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["results/a/b.csv", f"results/a/{'é' * 400}.csv"])
def test_a_record_is_found_where_snakemake_puts_it(name):
    place = FilePersistence._record_path(SimpleNamespace(_fetch_max_len=lambda _: 255), "", name)
    assert records.place(name) == Path(place) and records.file_of(Path(place)) == name
    assert len(Path(place).parts) == 1 or name.startswith(records.file_of(Path(place).parent)[:-1])


def test_a_study_without_records_is_told_how_to_get_them(results, capsys):
    damaged = next((results.parent / ".records").iterdir())
    damaged.write_text("{")
    assert len(explain.FinishedStudy(results).records) > 5
    shutil.rmtree(results.parent / ".records")
    assert main(["explain", "report.pdf", "--results", str(results)]) == 1
    assert ".records: expected Snakemake's records of what" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        (["why", "report.pdf", "--results", "results/demo"], "explain report.pdf --results results/demo"),
        (["verify-results", "--results", "results/demo"], "verify --results results/demo"),
        (["why", "--results=results/demo", "-h"], "explain --results=results/demo -h"),
    ],
)
def test_a_command_that_has_gone_names_the_one_to_use(capsys, command, instead):
    assert main(command) == 2 and f"use cifar-report {instead}\n" in capsys.readouterr().err


DAMAGED = {
    "search/mlp-grid/selected.yaml": ("settings: [", "[]", "settings: 3"),
    f"{RUN}/run.json": ("[]", "null", '{"final": {}}'),
    "dataset/dataset.json": ("{}", '{"sha256": 3}', "[]"),
}


@pytest.mark.parametrize("question", ["explain", "verify", "forecast"])
@pytest.mark.parametrize(("file", "content"), [(file, content) for file, all_ in DAMAGED.items() for content in all_])
def test_a_damaged_file_is_told_by_name_or_noticed(results, capsys, question, file, content):
    """Never a traceback; `verify` never says that all holds."""
    (results / file).write_text(content)
    what = {"explain": ["runs/mlp-tuned/seed-0/run.json"], "verify": [], "forecast": []}[question]
    if question == "explain" and file.startswith("runs/"):
        what = [f"{RUN}/run.json"]
    code = main([question, *what, "--results", str(results)])
    printed = "".join(capsys.readouterr())
    assert code in ((1,) if question == "verify" else (0, 1)) and "Traceback" not in printed
    assert code == 0 or Path(file).name in printed or str(Path(file).parent) in printed


NO_VALUE = {"x": [None]}  # of no type that a run.json or dataset.json has


@pytest.mark.parametrize("file", [f"{RUN}/run.json", "dataset/dataset.json"])
def test_a_value_of_another_type_is_told_in_our_words(results, capsys, file):
    """Each value of each file in turn: its key, what was found and what is expected."""
    path, read = results / file, {"run.json": read_record, "dataset.json": lambda path: datasets.load(path.parent)}
    document = json.loads(path.read_text())
    for key in document:
        for value in (NO_VALUE, [NO_VALUE], -1.5, "x" * 200):
            rewrite(path, **{key: value})
            try:
                read[path.name](path)
            except InputError as error:
                message = str(error)
                assert message.startswith(f"{path}: {key}") or " is missing" in message, message
                assert any(words in message for words in ("expected", "is missing", "is not allowed")), message
                assert len(message) < len(str(path)) + 300 and "nput should" not in message and "rror, " not in message
        rewrite(path, **document)


@pytest.mark.parametrize("key", ["commit", "device", "settings", "data"])
def test_a_null_in_a_record_is_refused_by_its_key(results, key):
    rewrite(results / RUN / "run.json", **{key: None})
    with pytest.raises(InputError, match=f"run.json: {key}: expected a value, found null"):
        read_record(results / RUN / "run.json")


def test_a_plan_that_is_missing_is_noticed(results):
    (results / plan_of(RUN)).unlink()
    assert f"{RUN}: plan" in problems(results)
