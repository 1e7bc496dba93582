"""Summary, selection, numbers and verification, on runs written by hand."""

import csv
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from sklearn.metrics import recall_score

from cifar_report.analysis import measurements, searches, selection, summary
from cifar_report.analysis.measurements import BATCH_STATISTICS
from cifar_report.analysis.statistics import binomial_error, t_interval
from cifar_report.base.errors import InputError
from cifar_report.cli import main
from cifar_report.inspection.verify import verify
from cifar_report.rendering import tables
from cifar_report.rendering.latex import escape
from cifar_report.runs.finished import against_labels, load_run
from cifar_report.study.settings import NEUTRAL

CURVE = "step,samples_seen,split,loss,accuracy\n0,0,train,2.3,0.1\n"
DIGESTS = {"curve.csv": hashlib.sha256(CURVE.encode()).hexdigest(), "model.safetensors": "x"}


def write_run(folder, seed=0, accuracy=0.5, status="completed", split="test", variant="mlp", **record):
    folder.mkdir(parents=True)
    final = {"loss": 1.0, "accuracy": accuracy}
    settings = {"kind": "numpy-mlp", "steps": 10, "batch_size": 4, "hidden": [100], "learning_rate": 0.1}
    document = {
        "variant": variant,
        "seed": seed,
        "status": status,
        "identity": "a" * 64,
        "settings": settings | record.pop("settings", {}),
        "final": {"train": {"loss": 0.5, "accuracy": 0.9}, split: final},
        "samples_seen": 40,
        "parameters": 7,
        "forward_flops": 14,
        "seconds": 2.0,
        "peak_memory_mb": 100.0,
        "device": {"type": "cpu", "cpu": "A"},
        "threads": 1,
        "versions": {"numpy": "2"},
        "digests": DIGESTS,
    }
    (folder / "run.json").write_text(json.dumps(document | record))
    (folder / "curve.csv").write_text(CURVE)


VARIANT = {"name": "mlp", "label": "MLP", "seeds": [0, 1, 2, 3], "search": None, "original_test_accuracy": 0.466}


def test_summary_against_scipy(tmp_path):
    """Mean, deviation and interval over the completed seeds; a diverged one is counted, not averaged."""
    accuracies = [0.45, 0.47, 0.44]
    for seed, accuracy in enumerate(accuracies):
        write_run(tmp_path / f"mlp/seed-{seed}", seed, accuracy)
    write_run(tmp_path / "mlp/seed-3", 3, 0.1, status="diverged")
    table, costs = summary.summarise({"variants": [VARIANT]}, tmp_path)
    row = table.iloc[0]
    low, high = stats.ttest_1samp(accuracies, 0).confidence_interval(0.95)
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert row["test_accuracy_std"] == pytest.approx(stats.tstd(accuracies))
    assert (row["test_accuracy_ci95_low"], row["test_accuracy_ci95_high"]) == pytest.approx((low, high))
    assert (row["seeds"], row["diverged"], row["original_test_accuracy"]) == (3, 1, 0.466)
    assert list(table.columns[:13]) == [
        "variant",
        "backend",
        "parameters",
        "steps",
        "batch_size",
        "seeds",
        "test_accuracy_mean",
        "test_accuracy_std",
        "test_accuracy_ci95_low",
        "test_accuracy_ci95_high",
        "train_accuracy_mean",
        "validation_accuracy_mean",
        "original_test_accuracy",
    ]
    assert list(costs.columns) == (
        ["variant", "train_seconds_median", "images_per_second", "peak_memory_mb", "threads", "device"]
    )
    assert costs.iloc[0]["images_per_second"] == 20


def test_one_seed_has_no_interval():
    assert t_interval([0.5]).mean == 0.5 and np.isnan(t_interval([0.5]).low)


def search_with(tmp_path, outcomes):
    for seed, (trial, (accuracy, status, rate)) in enumerate(outcomes.items()):
        write_run(tmp_path / trial, seed, accuracy, status, split="validation", settings={"learning_rate": rate})
    return {
        "grid": {"learning_rate": [0.1, 0.2, 0.3]},
        "trials": {trial: 7 + place for place, trial in enumerate(outcomes)},
    }


def test_select_takes_the_best_on_the_validation_split(tmp_path):
    """A diverged trial ranks last, whatever its accuracy says."""
    stage = search_with(
        tmp_path, {"a": (0.5, "completed", 0.1), "b": (0.6, "completed", 0.2), "c": (0.9, "diverged", 0.3)}
    )
    selection.select(stage, tmp_path, tmp_path / "selected.yaml")
    assert yaml.safe_load((tmp_path / "selected.yaml").read_text())["settings"] == {"learning_rate": 0.2}
    table = searches.trials(stage, tmp_path)
    assert list(table["selected"]) == [False, True, False]
    assert list(table["seed"]) == [7, 8, 9]  # as they are listed, not as they were trained


def test_a_configuration_is_selected_by_its_mean_and_not_if_a_seed_of_it_diverged(tmp_path):
    """0.1 has the best seed, 0.2 the best mean, and 0.3 a better one of the seeds that did not diverge."""
    accuracies = {"a": (0.9, 0.1), "b": (0.2, 0.1), "c": (0.6, 0.2), "d": (0.7, 0.2), "e": (0.8, 0.3)}
    outcomes = {trial: (accuracy, "completed", rate) for trial, (accuracy, rate) in accuracies.items()}
    stage = search_with(tmp_path, outcomes | {"f": (0.8, "diverged", 0.3)})
    table = searches.trials(stage, tmp_path)
    assert list(table.loc[table["selected"], "trial"]) == ["c", "d"]
    each = searches.configurations(table)
    assert list(each["learning_rate"]) == [0.1, 0.2, 0.3] and list(each["selected"]) == [False, True, False]
    assert list(each["validation_accuracy"]) == pytest.approx([0.55, 0.65, 0.8])
    assert list(each["trials"]) == [2, 2, 2] and list(each["diverged"]) == [0, 0, 1]


def test_equal_means_are_equal_whatever_the_order_of_their_seeds(tmp_path):
    """Their sums differ in the last bit; the lower loss decides."""
    accuracies = [0.4832, 0.4834, 0.4921]
    mean = pd.Series(accuracies).mean()
    assert mean != pd.Series(accuracies[2:] + accuracies[:2]).mean()
    stage = search_with(
        tmp_path,
        {f"a{i}": (accuracy, "completed", 0.1) for i, accuracy in enumerate(accuracies)}
        | {f"b{i}": (accuracy, "completed", 0.2) for i, accuracy in enumerate(accuracies[2:] + accuracies[:2])},
    )
    for trial in ("b0", "b1", "b2"):
        record = json.loads((tmp_path / trial / "run.json").read_text())
        record["final"]["validation"]["loss"] -= 0.5
        (tmp_path / trial / "run.json").write_text(json.dumps(record))
    table = searches.trials(stage, tmp_path)
    assert set(table.loc[table["selected"], "learning_rate"]) == {0.2}


def test_of_a_halving_only_the_longest_rung_competes(tmp_path):
    """Where all of it diverged, nothing is selected."""
    stage = search_with(tmp_path, {"a": (0.4, "completed", 0.1), "b": (0.5, "diverged", 0.2)})
    entries = [{"trial": "a", "rung": 1}, {"trial": "b", "rung": 2}]
    (tmp_path / "trials.json").write_text(json.dumps({"trials": entries}))
    assert not searches.trials({"grid": stage["grid"]}, tmp_path)["selected"].any()


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [("accuracy", "51", "0 to 1, found '51'"), ("accuracy", "x", "found 'x'"), ("seed", "-1", "0 or more, found '-1'")],
)
def test_a_measurement_out_of_its_range_is_named(tmp_path, column, value, expected):
    row = dict(zip(measurements.SHIFTS, ["v", "0", "1", "10", "0.5"], strict=True)) | {column: value}
    (tmp_path / "shifts.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(InputError, match=rf"shifts\.csv: {column}: expected a number, .*{expected}"):
        measurements.read(tmp_path / "shifts.csv", measurements.SHIFTS)


def test_levels_are_of_settings_that_a_search_varies_in_its_order():
    table = pd.DataFrame({"trial": "a", "rate": ["0.1", "0.02", "0.1"], "hidden": "100"})
    table = table.assign(
        validation_accuracy=0.5, validation_loss=1.0, status="completed", selected=False, rung=1, step=1
    )
    assert searches.levels(table.assign(curve="", search="s", seed=0)) == {"rate": ["0.1", "0.02"]}


def test_the_bias_of_a_choice_is_what_its_seed_has_over_the_others(tmp_path):
    """Two rates, three seeds: each seed chooses the better one of its column."""
    accuracies = np.array([[0.50, 0.44, 0.47], [0.48, 0.45, 0.42]])  # rate, seed
    table = pd.DataFrame(
        {
            "trial": f"{rate}-{seed}",
            "learning_rate": str(rate),
            "seed": seed,
            "validation_accuracy": accuracies[rate, seed],
        }
        for rate in range(2)
        for seed in range(3)
    ).assign(status="completed", validation_loss=1.0, rung=1, step=1, selected=False)
    biases = [0.50 - (0.44 + 0.47) / 2, 0.45 - (0.48 + 0.42) / 2, 0.47 - (0.50 + 0.44) / 2]
    assert searches.selection_bias(table) == pytest.approx((np.mean(biases), min(biases), max(biases)))
    table.loc[0, "status"] = "diverged"  # of the first rate, which no seed may choose now
    biases = [0.48 - (0.45 + 0.42) / 2, 0.45 - (0.48 + 0.42) / 2, 0.42 - (0.48 + 0.45) / 2]
    assert searches.selection_bias(table) == pytest.approx((np.mean(biases), min(biases), max(biases)))
    assert searches.selection_bias(table[table["seed"] == 0]) is None
    table.loc[4, "status"] = "diverged"  # of the other rate too
    assert searches.selection_bias(table) is None


def test_select_refuses_a_search_that_diverged_throughout(tmp_path):
    stage = search_with(tmp_path, {"a": (0.1, "diverged", 0.1), "b": (0.5, "completed", 0.1)})
    with pytest.raises(InputError, match="each configuration diverged with one of its seeds"):
        selection.select(stage, tmp_path, tmp_path / "selected.yaml")
    assert not (tmp_path / "selected.yaml").exists()


def reference_and_results(tmp_path, ours, **record):
    for seed, accuracy in enumerate([0.45, 0.47, 0.44]):
        write_run(tmp_path / f"reference/runs/mlp/seed-{seed}", seed, accuracy)
    for seed, accuracy in enumerate(ours):
        write_run(tmp_path / f"results/runs/mlp/seed-{seed}", seed, accuracy, **record)
    return verify(tmp_path / "results", tmp_path / "reference")


def test_verify_wants_identical_digests_in_the_same_environment(tmp_path):
    lines, holds = reference_and_results(tmp_path, [0.45, 0.47, 0.44])
    assert holds and lines[0].endswith("mlp: same environment, identical digests for 3 seed(s)")


def test_verify_tells_identical_digests_elsewhere(tmp_path):
    lines, holds = reference_and_results(tmp_path, [0.45, 0.47, 0.44], device={"type": "cpu", "cpu": "B"})
    assert holds and lines[0].endswith("mlp: another environment, identical digests for 3 seed(s)")


def test_verify_notices_another_digest(tmp_path, capsys):
    lines, holds = reference_and_results(tmp_path, [0.45, 0.47, 0.44], digests=DIGESTS | {"model.safetensors": "y"})
    assert not holds and "other digests for seed 0, 1, 2" in lines[0]
    assert main(["verify", "--results", str(tmp_path / "results"), "--reference", str(tmp_path / "reference")]) == 1
    assert "FAIL  mlp" in capsys.readouterr().out


@pytest.mark.parametrize("elsewhere", [{"cpu": "B"}, {"cpu": "A", "kernels": "Haswell"}], ids=["cpu", "kernels"])
@pytest.mark.parametrize(("ours", "expected"), [([0.46, 0.45], True), ([0.55, 0.56], False)])
def test_verify_elsewhere_takes_the_prediction_interval(tmp_path, ours, expected, elsewhere):
    lines, holds = reference_and_results(tmp_path, ours, device={"type": "cpu"} | elsewhere)
    allowed = 100 * stats.t.ppf(0.975, 2) * np.std([0.45, 0.47, 0.44], ddof=1) * np.sqrt(1 / 3 + 1 / 2)
    assert holds is expected and f"{allowed:.2f} allowed" in lines[0]


def test_a_torn_run_is_named(tmp_path):
    write_run(tmp_path / "mlp")
    record = (tmp_path / "mlp/run.json").read_bytes()
    (tmp_path / "mlp/run.json").write_text('{"variant": "ml')
    with pytest.raises(InputError, match=r"run\.json.*expected JSON"):
        load_run(tmp_path / "mlp")
    (tmp_path / "mlp/run.json").write_text("{}")
    with pytest.raises(InputError, match="'seed' is missing"):
        load_run(tmp_path / "mlp")
    (tmp_path / "mlp/run.json").write_bytes(record)
    (tmp_path / "mlp/curve.csv").write_text("step,loss\n")
    with pytest.raises(InputError, match="expected the columns"):
        load_run(tmp_path / "mlp")
    (tmp_path / "mlp/curve.csv").write_text(CURVE.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="expected a row a step and split"):
        load_run(tmp_path / "mlp")
    (tmp_path / "mlp/curve.csv").write_text(CURVE.splitlines()[0] + "\n0,0,train,-1,0.5\n")
    with pytest.raises(InputError, match="no loss below 0"):
        load_run(tmp_path / "mlp")
    (tmp_path / "mlp/run.json").write_text(json.dumps(json.loads(record) | {"settings": {"steps": "6"}}))
    with pytest.raises(InputError, match=r"run\.json.*steps: '6', expected a value of the type <class 'int'>"):
        load_run(tmp_path / "mlp")


@pytest.mark.parametrize(
    ("first", "loss", "same"),
    [
        (0, math.log(2), True),  # hence of two equal logits, in nats
        (0, None, False),
        (math.nan, None, True),
        (math.nan, 2e6, True),
        (math.nan, 5.0, False),
    ],
)
def test_logits_are_held_against_the_loss(first, loss, same):
    """No loss is told of a run that diverged, or one beyond a million."""
    logits = np.array([[first, 0]], np.float32)
    told = against_labels(logits, {"loss": loss, "accuracy": 1.0}, np.array([0]), (1, 2))
    assert (told == "") is same


def test_latex_specials_are_escaped():
    assert escape(r"50 % of {a_b} & c\d") == r"50 \% of \{a\_b\} \& c\textbackslash{}d"
    assert escape("10\u2009000 images") == r"10\,000 images"  # as figures write thousands


def test_search_csv_has_a_row_a_trial_and_leads_to_its_curve(tmp_path):
    tmp_path = tmp_path / "search"
    stage = search_with(tmp_path / "grid", {"a": (0.5, "completed", 0.1), "b": (0.6, "completed", 0.2)})
    (tmp_path / "grid/b/curve.csv").write_text(f"{CURVE}30,120,train,1.3,0.5\n")
    record = json.loads((tmp_path / "grid/b/run.json").read_text())
    (tmp_path / "grid/b/run.json").write_text(json.dumps({key: record[key] for key in record if key != "digests"}))
    searches.write({"grid": stage}, tmp_path, tmp_path / "search.csv")
    table = searches.read(tmp_path / "search.csv", ["grid"])
    assert list(table.columns) == [
        *("trial", "learning_rate", "validation_accuracy", "validation_loss", "status", "selected"),
        *("rung", "step", "curve", "search", "seed"),
    ]
    assert [pd.read_csv(tmp_path.parent / c)["step"].max() for c in table["curve"]] == list(table["step"])
    assert list(table["validation_accuracy"]) == [0.5, 0.6] and list(table["selected"]) == [False, True]
    assert list(table["step"]) == [0, 30] and list(table["validation_loss"]) == [1, 1] and set(table["rung"]) == {1}
    assert list(table["trial"]) == ["a", "b"] and set(table["search"]) == {"grid"} and list(table["seed"]) == [7, 8]
    assert list(table["curve"]) == [f"search/grid/{trial}/curve.csv" for trial in "ab"]
    assert searches.settings(table) == ["learning_rate"] and list(table["learning_rate"]) == ["0.1", "0.2"]


def test_a_whole_number_stays_one_beside_a_search_that_does_not_vary_it(tmp_path):
    write_run(tmp_path / "sizes/a", 0, 0.5, "completed", split="validation", settings={"batch_size": 50})
    sizes = {"grid": {"batch_size": [50]}, "trials": {"a": 0}}
    rates = search_with(tmp_path / "rates", {"b": (0.5, "completed", 0.1)})
    searches.write({"sizes": sizes, "rates": rates}, tmp_path, tmp_path / "search.csv")
    with (tmp_path / "search.csv").open() as file:
        rows = [(row["batch_size"], row["learning_rate"], row["rung"]) for row in csv.DictReader(file)]
    assert rows == [("50", "", "1"), ("", "0.1", "1")]


def test_search_csv_is_refused_without_a_column_or_a_search(tmp_path):
    path = tmp_path / "search.csv"
    with pytest.raises(InputError, match=r"search\.csv: expected a CSV file of trials, found .*No such file"):
        searches.read(path)
    row = {name: "1" for name in searches.TYPES} | {"search": "grid"}
    pd.DataFrame([row]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"no trial of the search other"):
        searches.read(path, ["grid", "other"])
    pd.DataFrame([row | {"rung": "first"}]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"expected a CSV file of trials, found invalid literal"):
        searches.read(path)
    pd.DataFrame([row]).drop(columns="rung").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"the column rung is missing"):
        searches.read(path)


def test_binomial_error_is_scipys():
    assert binomial_error(0.466, 10_000) == pytest.approx(stats.binom(10_000, 0.466).std() / 10_000)


def test_paired_differences_take_the_seeds_that_both_completed(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        write_run(tmp_path / f"a/seed-{seed}", seed, accuracy)
    for seed, accuracy in ((2, 0.65), (0, 0.4), (1, 0.9)):
        write_run(tmp_path / f"b/seed-{seed}", seed, accuracy, status="diverged" if seed == 1 else "completed")
    a, b = ([load_run(tmp_path / f"{name}/seed-{seed}") for seed in (0, 1, 2)] for name in "ab")
    differences = summary.paired_differences(summary.Facts(a), summary.Facts(b))
    assert differences == pytest.approx([0.1, 0.05])


def test_the_facts_of_a_variant_are_those_of_its_completed_runs(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        write_run(tmp_path / f"a/seed-{seed}", seed, accuracy, status="diverged" if seed == 1 else "completed")
    facts = summary.facts({"a": [load_run(tmp_path / f"a/seed-{seed}") for seed in range(3)]}, np.zeros(100))["a"]
    assert (facts.seeds, facts.diverged, facts.images_seen, facts.training_flops) == (2, 1, 40, 3 * 14 * 40)
    assert facts.accuracy["test"] == t_interval([0.5, 0.7]) and np.isnan(facts.accuracy["validation"].mean)
    assert facts.gap.mean == pytest.approx(0.3) and facts.loss["train"].mean == 0.5
    assert facts.test_accuracy_std == pytest.approx(stats.tstd([0.5, 0.7]))
    assert facts.test_accuracy_binomial == binomial_error(facts.accuracy["test"].mean, 100)
    flips = pd.DataFrame({"variant": ["b", "a", "a"], "accuracy": [0, 0.5, 0.7], "accuracy_flipped": [0, 0.6, 0.7]})
    flipped = summary.facts({"a": facts.runs}, flips=flips)["a"]
    assert flipped.flipped_accuracy == t_interval([0.6, 0.7]) and flipped.flip_gain.mean == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("quantity", "files"),
    [
        ("gap", ["runs/mlp/seed-0/run.json", "runs/mlp/seed-2/run.json"]),
        ("diverged", [f"runs/mlp/seed-{seed}/run.json" for seed in range(3)]),
        ("parameters", ["runs/mlp/seed-0/run.json"]),
        ("calibration_error", ["runs/mlp/seed-0/test-logits.npy", "runs/mlp/seed-2/test-logits.npy"]),
        ("flip_gain", ["flips.csv"]),
    ],
)
def test_a_quantity_names_the_files_that_it_comes_from(tmp_path, quantity, files):
    for seed in range(3):
        write_run(tmp_path / f"mlp/seed-{seed}", seed, status="diverged" if seed == 1 else "completed")
    facts = summary.Facts([load_run(tmp_path / f"mlp/seed-{seed}") for seed in range(3)])
    assert facts.sources(quantity) == files
    with pytest.raises(AttributeError):
        facts.sources("no_such_quantity")


def test_class_accuracy_is_scikit_learns_recall(tmp_path):
    write_run(tmp_path / "run")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 4, 60)
    np.save(tmp_path / "run/test-logits.npy", logits)
    facts = summary.Facts([load_run(tmp_path / "run")], labels)
    np.testing.assert_allclose(facts.class_accuracy, recall_score(labels, logits.argmax(axis=1), average=None))


def best_stage(best):
    names = ("mlp", "mlp-best", "vgg-best")
    variants = [{"name": n, "label": n.upper(), "original_test_accuracy": 0.466 if n == "mlp" else None} for n in names]
    return {"variants": variants, "report": {"best": best}, "like": {"mlp-best": "mlp"}}


def test_the_table_of_compatibility_holds_what_was_measured_as_the_original_did(tmp_path):
    """Three runs of 40, 42 and 44 per cent beside 46.6: s is 2, and t of two degrees of freedom is 4.303."""
    for seed, accuracy in enumerate((0.40, 0.42, 0.44)):
        write_run(tmp_path / f"mlp/{seed}", seed, accuracy)
    runs = {name: [load_run(tmp_path / f"mlp/{s}") for s in (0, 1, 2)] for name in ("mlp", "mlp-best", "vgg-best")}
    batches = pd.DataFrame([("mlp", s, 4, 2, 2, 0.30 + s / 100, 0.4) for s in (0, 1, 2)], columns=BATCH_STATISTICS)
    stage, half = best_stage({}), 4.303 * 2 * np.sqrt(4 / 3)

    def rows(facts):
        lines = tables.compatibility_table(stage, facts).splitlines()
        return [[cell.strip() for cell in line.rstrip("\\ ").split("&")] for line in lines if "&" in line][1:]

    (row,) = rows(summary.facts(runs))
    expected = ["46.6", "3", "42.00", "2.00", f"{{{42 - half:.1f} to {42 + half:.1f}}}", f"{half:.1f}", "13.1"]
    assert row[1:8] == expected and row[9] == "compatible"
    as_original, evaluated = rows(summary.facts(runs, by_batch_statistics=batches))
    assert as_original[2:4] == ["3", "31.00"] and as_original[9] == "incompatible"
    assert evaluated[1:8] == expected
    (few,) = rows(summary.facts({name: members[:2] for name, members in runs.items()}))
    assert few[5] == "{--}" and few[9] == "unknown"


def test_best_table_leaves_out_what_the_study_does_not_run(tmp_path):
    recipe = {
        "optimiser": "sgd",
        "preprocessing": "mean-image",
        "batch_size": 4,
        "initial_std": None,
        "train_on": "train",
        "slope": 0.02,
    }
    better = recipe | {"momentum": 0.9, "nesterov": True, "schedule": "one-cycle", "flip": True, "steps": 30}
    for seed, gain in enumerate((0.1, 0.2)):
        write_run(tmp_path / f"mlp/{seed}", seed, 0.4, settings=recipe)
        write_run(tmp_path / f"best/{seed}", seed, 0.4 + gain, settings=better)
    runs = {"mlp": [load_run(tmp_path / f"mlp/{s}") for s in (0, 1)]}
    runs |= {name: [load_run(tmp_path / f"best/{s}") for s in (0, 1)] for name in ("mlp-best", "vgg-best")}
    best = {"mlp": ["mlp-best", "mlp-record"], "vgg": ["vgg-best"]}
    facts = summary.facts(runs)
    lines = tables.best_table(best_stage(best), facts).splitlines()
    rows = [[cell.strip() for cell in line.rstrip("\\ ").split("&")] for line in lines if "&" in line]
    assert len(rows) == 3  # with the head
    assert rows[1][:4] == ["MLP", "46.6", "40.00", "0.00"]
    assert rows[1][4:6] == ["MLP-BEST", "120"]  # 30 steps of 4 images
    assert rows[1][6:8] == ["55.00", "63.53"]  # t of one degree of freedom is 12.706, times 0.05
    assert rows[2][:4] == [""] * 4
    (row,) = [line for line in tables.differences_table(best_stage(best), facts).splitlines() if "MLP-BEST" in line]
    changed = r"4 settings (\cref{tab:settings})"
    assert [cell.strip() for cell in row.split("&")][2:5] == [changed, "2", "15.00"]
    assert tables.best_table(best_stage({"mlp": ["mlp-record"]}), facts).startswith("%")


def test_a_key_missing_from_settings_is_named_also_beside_the_defaults(tmp_path):
    write_run(tmp_path / "run")
    path = tmp_path / "run/run.json"
    record = json.loads(path.read_text())
    del record["settings"]["steps"]
    path.write_text(json.dumps(record))
    settings = NEUTRAL | load_run(tmp_path / "run").record["settings"]
    with pytest.raises(InputError, match=r"run\.json: the key 'steps' is missing; train it again"):
        settings["steps"]
