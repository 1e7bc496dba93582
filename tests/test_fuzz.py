"""Property tests: whatever a configuration or a file of results says, it is taken or refused by name, no traceback.

`make fuzz` (HYPOTHESIS_PROFILE=fuzz) tries 10,000 configurations and trains 30 of those that were taken; the short form
tries 500 and trains 5.
"""

import copy
import dataclasses
import datetime
import functools
import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import obtain, requested
from snakemake.utils import update_config

from cifar_report.analysis import measurements, searches, summary
from cifar_report.base.errors import InputError
from cifar_report.base.files import array_digest, to_json
from cifar_report.base.randomness import stratified_indices
from cifar_report.data import datasets
from cifar_report.rendering import figures, tables
from cifar_report.runs import store
from cifar_report.runs.finished import load_run, load_runs
from cifar_report.study import config, plan
from cifar_report.study.document import schema as schema_of_study

ROOT = Path(__file__).parent.parent
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
CONFIGS, RUNS, FILES = (10_000, 30, 1_000) if LONG else (500, 5, 50)
FILE_NAMES = ("run.json", "curve.csv", "model.safetensors", "test-logits.npy")


def tries(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=LONG,
    )


# --- documents --------------------------------------------------------------------------------------------------------


def shipped(overlay):
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    if overlay:
        update_config(document, yaml.safe_load((ROOT / overlay).read_text()))
    return document


OVERLAYS = (None, *(f"config/{name}.yaml" for name in ("cpu", "bf16", "cifar10-jpeg", "demo")))
SHIPPED = [shipped(overlay) for overlay in OVERLAYS]
PROPERTIES = schema_of_study()["properties"]["defaults"]["properties"]
STUDY = {
    "study": "fuzz",
    "report": {"title": "T", "author": "A"},
    "dataset": "digits",
    "datasets": {"digits": {"source": "digits"}},
    "validation_images": 10,
    "seeds": [0],
    "shifts": {"variants": [], "images": 10},
    "run": ["a"],
    "defaults": {"evaluate_every": 1, "evaluation_images": 10, "threads": 1, "learning_rate": 0.01, "steps": 2},
}

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 2, -1, 0.0, -0.0, 1.0, 0.5, 1e-300, 5e-324, 1e300, 2**31, 2**32, 2**53, 10**30, 10**400]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "a", "..", "../x", "/etc/passwd", "$(id)", "`id`", "a b", "a'b", 'a"b', "demo\n", "a\0b", "%", "#1"]
    ),
    st.sampled_from(
        [r"\input{/etc/passwd}", "{", "1e400", "nan", "none", "true", "\ud800", "²", "é", "Ω", "\u202e", "👍"]
    ),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    texts,
    st.dates(),
    st.just(datetime.datetime(2024, 1, 1)),
    st.binary(max_size=3),
    st.just({1, 2}),
)
keys = st.one_of(texts, st.none(), st.booleans(), st.integers(), st.sampled_from([*PROPERTIES, *STUDY, "like"]))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def allowed(schema):
    """Values that the schema of a setting takes, the extreme ones often."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    low = schema.get("minimum", schema.get("exclusiveMinimum", -(2**53)))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 2**53))
    either = {
        "boolean": st.booleans(),
        "null": st.none(),
        "integer": st.integers(low, high) | st.integers(low, min(low + 8, high)),
        "number": st.floats(
            low, high, exclude_min="exclusiveMinimum" in schema, exclude_max="exclusiveMaximum" in schema
        )
        | st.sampled_from([1e-3, 0.1, 0.5, 0.9]),
        "array": st.lists(st.integers(1, 32), max_size=3),
    }
    return st.one_of([either[kind] for kind in kinds])


SETTINGS = {name: allowed(schema) for name, schema in PROPERTIES.items()}
COMMON = [name for name in SETTINGS if name not in ("threads", "steps", "evaluate_every", "evaluation_images")]


@st.composite
def variants(draw):
    """A variant of allowed values; some of them do not go together."""
    needed = ("kind", "optimiser", "batch_size", "preprocessing")
    names = [*needed, *draw(st.lists(st.sampled_from(COMMON), max_size=6))]
    return {name: draw(SETTINGS[name]) for name in names}


@st.composite
def studies(draw):
    """A small study of one to three variants, each alone or like the one before it, and perhaps a search."""
    document = copy.deepcopy(STUDY) | {"variants": {"a": draw(variants())}}
    for name in ("b", "c")[: draw(st.integers(0, 2))]:
        document["variants"][name] = {"like": "a"} | draw(variants())
        document["run"].append(name)
    if draw(st.booleans()):
        axes = draw(st.lists(st.sampled_from(COMMON[2:]), min_size=1, max_size=3, unique=True))
        grid = [{"setting": name, "values": draw(st.lists(SETTINGS[name], min_size=1, max_size=3))} for name in axes]
        document["search"] = {"grid": {"like": "a", "seeds": [0], "grid": grid}}
        document["variants"]["tuned"] = {"like": "a", "search": "grid"}
        document["run"].append("tuned")
    return document


def places(document, where=()):
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [where, *(place for key, value in items for place in places(value, (*where, key)))]


def at(document, place):
    return functools.reduce(lambda value, key: value[key], place, document)


@st.composite
def mutated(draw, documents, junk=anything):
    """A document with one to three of its values taken out, replaced, doubled or exchanged for another of its own."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(document)))
        if not place:
            continue
        parent, key = at(document, place[:-1]), place[-1]
        kind = draw(st.sampled_from(["remove", "replace", "allowed", "copy", "add"]))
        if kind == "remove":
            del parent[key]
        elif kind == "allowed" and key in SETTINGS:
            parent[key] = draw(SETTINGS[key])
        elif kind == "copy":
            parent[key] = copy.deepcopy(at(document, draw(st.sampled_from(places(document)))))
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(keys)] = draw(junk)
        elif kind == "add":
            parent.append(draw(junk))
        else:
            parent[key] = draw(junk)
    return document


documents = st.one_of(studies(), mutated(studies()), mutated(st.sampled_from(SHIPPED)), anything)


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A few images of the digits, of each class some, so that two steps and their evaluations take no time."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("digits")
    datasets.prepare("digits", {"source": "digits"}, 200, whole, whole)
    description = json.loads((whole / "dataset.json").read_text())
    for split, count in {"train": 60, "validation": 20, "test": 20}.items():
        index = stratified_indices(np.load(whole / f"{split}-labels.npy"), count, np.random.default_rng(0))
        for part in ("images", "labels"):
            array = np.load(whole / f"{split}-{part}.npy")[index]
            np.save(folder / f"{split}-{part}.npy", array)
            description["sha256"][f"{split}-{part}"] = array_digest(array)
        description["counts"][split] = count
    (folder / "dataset.json").write_text(to_json(description))
    return datasets.load(folder)


def small(chosen):
    """The settings in a size that trains in no time: two steps, few and small layers, one thread."""
    return dataclasses.replace(
        chosen,
        steps=2,
        evaluate_every=1,
        threads=1,
        batch_size=min(chosen.batch_size, 16),
        hidden=tuple(min(units, 16) for units in chosen.hidden[:3]),
        evaluation_images=min(chosen.evaluation_images, 10),
    )


def test_any_configuration_is_taken_or_refused(digits, tmp_path, monkeypatch, capsys):
    """And what is taken trains: a sample of the variants runs for two steps, to a result that the analysis can read."""
    monkeypatch.setattr(plan, "kept_code_digest", lambda kind: "code")
    monkeypatch.setattr(plan, "modules_digest", lambda *modules: "code")  # no configuration changes it
    told, taken, start = Counter(), {}, time.perf_counter()

    @tries(CONFIGS)
    @given(documents)
    def check(document):
        told["generated"] += 1
        try:
            study = config.load(document)
            found = plan.documents(study)
        except InputError as error:
            assert str(error).startswith("config")
            told["refused"] += 1
            return
        told["accepted"] += 1
        yaml.safe_dump(document, allow_unicode=True).encode()
        for name, entry in found.items():
            to_json(entry).encode()
            is_variant = "/" not in name and not entry["search"]
            if is_variant or (name.startswith("search/") and "kind" in entry["settings"]):
                settings = small(plan.settings_of(entry))
                taken[to_json(settings.canonical())] = settings

    check()
    monkeypatch.undo()
    assert told["generated"] >= CONFIGS and told["accepted"] >= CONFIGS // 10 and told["refused"] >= CONFIGS // 10
    loaded = time.perf_counter()
    # A VGG takes seconds where an MLP takes none: one in ten.
    order = random.Random(0).sample(sorted(taken), len(taken))
    vggs = [key for key in order if taken[key].kind == "torch-vgg"][: max(RUNS // 10, 1)]
    others = [key for key in order if taken[key].kind != "torch-vgg"][: RUNS - len(vggs)]
    assert len(vggs + others) == RUNS
    ends = Counter()
    for number, key in enumerate(vggs + others):
        with np.errstate(all="ignore"):
            finished = obtain(taken[key], 0, digits, tmp_path / "store", f"run {number}")
        store.publish(finished, tmp_path / f"run-{number}", requested(taken[key], 0, digits), "a")
        ends[load_run(tmp_path / f"run-{number}").record["status"]] += 1
    seconds = {"load": round(loaded - start, 1), "train": round(time.perf_counter() - loaded, 1)}
    with capsys.disabled():
        print(f"\nconfigurations {dict(told)}; runs {dict(ends)}; seconds {seconds}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": float("nan")}, "variants.a.learning_rate: nan, expected a finite number"),
        ({"learning_rate": float("inf")}, "expected a finite number"),
        ({"steps": 10**30}, "variants.a.steps: expected an integer of at most"),
        ({"steps": 2.0}, "variants.a.steps: 2.0, expected an integer"),
        ({"seeds": [1.0]}, "seeds.0: 1.0, expected an integer"),
        (
            {"batch_size": 1, "batch_norm": "manual", "kind": "torch-mlp"},
            "variants.a.batch_size: 1, expected at least 2",
        ),
        ({"label": "two\nlines"}, "variants.a.label: 'two\\nlines' holds a line break"),
        ({"label": "\ud800"}, "control character"),
        ({"label": datetime.date(2024, 1, 1)}, "is a date; put it in quotes"),
        ({7: 1}, "variants.a: the key 7 is no text"),
    ],
    ids=str,
)
def test_what_yaml_can_say_and_no_study_can_mean(change, words):
    whole = {"kind": "numpy-mlp", "optimiser": "sgd", "batch_size": 4, "preprocessing": "standardise"}
    config.load(copy.deepcopy(STUDY) | {"variants": {"a": whole}})
    with pytest.raises(InputError) as error:
        config.load(copy.deepcopy(STUDY) | {"variants": {"a": whole | change}})
    assert words in str(error.value)


def test_documents_without_end_are_refused():
    """An alias inside its own anchor, and a chain of a thousand variants, each like the next."""
    for text in ("&a [*a]", "&a {x: *a}"):
        with pytest.raises(InputError, match=r"^config: expected at most"):
            config.load(yaml.safe_load(text))
    bomb = functools.reduce(lambda inner, _: [inner] * 10, range(15), "x")
    with pytest.raises(InputError, match="at most 100,000 values"):
        config.load({"run": bomb})
    chain = {f"v{i}": {"like": f"v{i + 1}"} for i in range(3000)}
    with pytest.raises(InputError, match="'v3000' is not among the variants"):
        config.load(copy.deepcopy(STUDY) | {"variants": chain, "run": ["v0"]})


def test_a_search_of_too_many_trials_is_refused():
    settings = {"kind": "torch-mlp", "optimiser": "sgd", "batch_size": 4, "preprocessing": "standardise"}
    values = [i / 1000 for i in range(1000)]
    grid = [{"setting": name, "values": values} for name in ("momentum", "dropout", "weight_decay")]
    search = {"grid": {"like": "a", "seeds": [0], "grid": grid}}
    with pytest.raises(InputError, match="1,000,000,000 trials"):
        config.load(copy.deepcopy(STUDY) | {"variants": {"a": settings}, "search": search})


def test_a_variant_takes_no_setting_of_a_search_that_its_kind_lacks():
    """The search is of a PyTorch MLP, and a NumPy one takes its settings: what it calls Adam would be SGD."""
    settings = {"kind": "torch-mlp", "optimiser": "sgd", "batch_size": 4, "preprocessing": "standardise"}
    search = {"grid": {"like": "a", "seeds": [0], "grid": [{"setting": "optimiser", "values": ["sgd", "adam"]}]}}
    tuned = {"b": {"like": "a", "kind": "numpy-mlp", "search": "grid"}}
    with pytest.raises(InputError, match=r"variants\.b\.optimiser: 'adam', but a numpy-mlp"):
        config.load(copy.deepcopy(STUDY) | {"variants": {"a": settings} | tuned, "search": search, "run": ["b"]})


# --- files ------------------------------------------------------------------------------------------------------------

MLP = config.Settings(
    kind="numpy-mlp",
    optimiser="sgd",
    learning_rate=0.01,
    steps=2,
    batch_size=10,
    preprocessing="standardise",
    evaluate_every=1,
    evaluation_images=10,
    threads=1,
    hidden=(4,),
)
FILE_STUDY = STUDY | {"seeds": [0, 1], "run": ["a", "b"]} | {"variants": {"a": {}, "b": {"like": "a"}}}
FILE_STUDY["defaults"] = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(MLP).items()}
STAGES = {
    name.removeprefix("stages/"): json.loads(to_json(entry["settings"]))
    for name, entry in plan.documents(config.load(FILE_STUDY)).items()
    if name.startswith("stages/")
}
VARIANTS = STAGES["tables"]["variants"]
GRID = {"grid": {"learning_rate": [0.01], "hidden": [[4]]}, "trials": {"a/seed-0": 0, "a/seed-1": 1}}


@pytest.fixture(scope="module")
def study(digits, tmp_path_factory):
    """Two variants of two seeds each, and the dataset."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(digits.folder, folder / "dataset")
    for name in ("a", "b"):
        for seed in (0, 1):
            finished = obtain(MLP, seed, digits, folder / "store", name)
            store.publish(finished, folder / f"runs/{name}/seed-{seed}", requested(MLP, seed, digits), name)
    summary.write_summary(STAGES["summarise"], folder / "runs", folder / "summary.csv", folder / "costs.csv")
    tables = {"flips": measurements.FLIPS, "batch-statistics": measurements.BATCH_STATISTICS}
    for name, columns in (tables | {"agreement": measurements.AGREEMENT}).items():
        (folder / f"{name}.csv").write_text(",".join(columns) + "\n")
    (folder / "figures").mkdir()
    for name in ("claims.json", "figures/figures.json"):
        (folder / name).write_text("[]")
    return folder


def analyse(study, drawn=False):
    """What the analysis makes of a study: every number and table, and the figures of the curves."""
    runs = load_runs(study / "runs", VARIANTS)
    summary.summarise(STAGES["summarise"], study / "runs")
    searches.trials(GRID, study / "runs")
    tables.write(STAGES["tables"], study)
    if drawn:
        figures.curves(VARIANTS[0], runs["a"])
        figures.comparison(VARIANTS, runs)


def refused_or_fine(study, path, content, told, drawn=False):
    whole = path.read_bytes()
    path.write_bytes(content)
    told["generated"] += 1
    try:
        analyse(study, drawn)
        told["fine"] += 1
    except InputError as error:
        assert str(path.parent) in str(error)
        told["refused"] += 1
    finally:
        path.write_bytes(whole)


json_scalars = st.one_of(st.none(), st.booleans(), numbers.filter(lambda n: abs(n) < 10**4000), texts)
json_values = st.recursive(
    json_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@st.composite
def mutated_json(draw, document):
    """As `mutated`, of JSON types alone; NaN and Infinity stand as Python's reader takes them."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(document)))
        if not place:
            return draw(json_values)
        parent = at(document, place[:-1])
        if draw(st.booleans()):
            del parent[place[-1]]
        else:
            parent[place[-1]] = draw(json_values)
    return document


@pytest.mark.parametrize("name", ["runs/a/seed-0/run.json", "dataset/dataset.json"])
def test_any_json_is_fine_or_refused(study, name, capsys):
    path, told = study / name, Counter()
    refused_or_fine(study, path, path.read_bytes(), told)  # as it is, it is fine

    @tries(FILES)
    @given(mutated_json(json.loads(path.read_text())))
    def check(document):
        drawn = not told["generated"] % 10
        refused_or_fine(study, path, json.dumps(document).encode("utf-8", "surrogatepass"), told, drawn)

    check()
    with capsys.disabled():
        print(f"\n{name} {dict(told)}")
    assert told["fine"] and told["refused"]


@st.composite
def mutated_csv(draw, text):
    """Cells replaced, lines taken out, doubled or exchanged, columns added, bytes put in."""
    table = [line.split(",") for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(table) - 1))
        kind = draw(st.sampled_from(["cell", "cell", "cut", "double", "swap", "longer", "shorter", "wider"]))
        if kind == "cell" and table[row]:
            cells = st.one_of(numbers.filter(lambda n: abs(n) < 10**4000).map(str), texts, st.sampled_from(table[row]))
            table[row][draw(st.integers(0, len(table[row]) - 1))] = draw(cells)
        elif kind == "cut" and len(table) > 1:
            del table[row]
        elif kind == "double":
            table.insert(row, list(table[row]))
        elif kind == "swap":
            other = draw(st.integers(0, len(table) - 1))
            table[row], table[other] = table[other], table[row]
        elif kind == "longer":
            table[row].append("9")
        elif kind == "shorter":
            table[row] = table[row][:-1]
        elif kind == "wider":
            table = [[*line, "0"] for line in table]
    content = bytearray("\n".join(map(",".join, table)).encode("utf-8", "surrogatepass") + b"\n")
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(content)))
        content[place:place] = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b'"', b"\0", b"\xff", b"\r"]))
    return bytes(content)


def test_any_curve_is_fine_or_refused(study, capsys):
    path, told = study / "runs/a/seed-0/curve.csv", Counter()

    @tries(FILES)
    @given(mutated_csv(path.read_text()))
    def check(content):
        refused_or_fine(study, path, content, told, drawn=not told["generated"] % 10)

    check()
    with capsys.disabled():
        print(f"\ncurve.csv {dict(told)}")
    assert told["refused"] > told["fine"]  # run.json holds the curve's digest: fine is the curve as it was alone


def test_a_run_in_the_place_of_another_is_refused(study, tmp_path):
    shutil.copytree(study / "runs", tmp_path / "runs")
    shutil.copytree(tmp_path / "runs/a/seed-0", tmp_path / "runs/a/seed-1", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"expected seed 1 of a, .* found seed 0 of a"):
        load_runs(tmp_path / "runs", VARIANTS)


@pytest.mark.parametrize("other", [[], {}], ids=["list", "dictionary"])
@pytest.mark.parametrize("name", ["runs/a/seed-0/run.json", "dataset/dataset.json"])
def test_a_list_or_a_dictionary_in_place_of_any_value_is_fine_or_refused(study, name, other):
    """No draw is needed to come upon what cannot be a key of a dictionary."""
    path, told = study / name, Counter()
    whole = json.loads(path.read_text())
    for *parents, last in filter(None, places(whole)):
        document = copy.deepcopy(whole)
        at(document, parents)[last] = other
        refused_or_fine(study, path, json.dumps(document).encode(), told)
    assert told["refused"] > 10
