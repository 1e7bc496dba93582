"""A wrong configuration is refused before any job starts, by a message that names the key and the value."""

import copy
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from cifar_report import cli
from cifar_report.analysis.claims import file as claims
from cifar_report.base.errors import InputError
from cifar_report.base.files import digested, read_yaml
from cifar_report.rendering.words import OPTIMISERS
from cifar_report.study import config, document, plan
from cifar_report.study.kinds import KINDS

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"


OVERLAYS = [None, *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "config").glob("*.yaml"))]


def written(change=None, overlay=None):
    whole = yaml.safe_load((ROOT / "config.yaml").read_text())
    if overlay:
        update_config(whole, yaml.safe_load((ROOT / overlay).read_text()))
    update_config(whole, copy.deepcopy(change or {}))
    return whole


def load(change=None, overlay=None):
    return config.load(written(change, overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_shipped_studies_are_valid_and_have_names_of_their_own(overlay):
    study = load(overlay=overlay)
    assert study.variants and study.searches
    assert overlay is None or study.name != load().name


def test_bf16_is_for_gpus_and_for_those_who_ask():
    """Processors without its instructions take longer with it than in float32."""
    for overlay, wanted in ((None, set()), ("config/bf16.yaml", {"mlp-best", "vgg-160k", "vgg-best"})):
        variants = load(overlay=overlay).variants.items()
        found = {name for name, variant in variants if variant.settings.get("precision") == "bf16"}
        assert found == wanted | {"vgg-record"}


def test_each_stage_is_told_of_the_variants_it_is_about():
    """Those that config.yaml names for it and that the study runs."""
    change = {"run": ["mlp-numpy", "mlp-tuned", "mlp-best"], "shifts": {"variants": ["mlp-tuned", "vgg"]}}
    told = plan.stage_settings(load(change))

    def names(stage):
        return [variant["name"] for variant in stage["variants"]]

    assert names(told["shifts"]) == told["figures"]["shifted"] == ["mlp-tuned"]
    assert names(told["events"]) == [] and names(told["summarise"]) == change["run"]
    assert names(plan.stage_settings(load(change | {"tensorboard": True}))["events"]) == change["run"]
    assert [(name, told["search"][name]["method"]) for name in sorted(told["search"])] == [
        ("mlp-best-without", "list"),
        ("mlp-grid", "grid"),
    ]


def test_a_list_tries_its_values_in_the_order_in_which_they_stand():
    configurations = {"high": {"learning_rate": 0.3}, "low": {"learning_rate": 0.1}, "mid": {"learning_rate": 0.2}}
    change = {"search": {"mlp-best-without": {"configurations": configurations}}}
    whole = written(change)
    whole["search"]["mlp-best-without"]["configurations"] = configurations
    assert config.load(whole).searches["mlp-best-without"].grid == {"learning_rate": [0.3, 0.1, 0.2]}


def test_a_range_may_be_of_a_number_that_can_be_none():
    axes = [{"setting": "initial_std", "low": 0.001, "high": 0.1, "log": True}]
    space = load({"search": {"mlp-halving": {"grid": axes}}}).searches["mlp-halving"].grid
    assert space == {"initial_std": {"low": 0.001, "high": 0.1, "log": True}}


WRONG = {
    "variants.mlp-numpy.stepz": "did you mean 'steps'",
    "variants.mlp-numpy.steps=-5": "variants.mlp-numpy.steps: -5",
    "variants.mlp-numpy.steps=0": "variants.mlp-numpy.steps: 0",
    "variants.mlp-numpy.steps=many": "variants.mlp-numpy.steps: 'many'",
    "variants.mlp-numpy.steps=2.0": "variants.mlp-numpy.steps: 2.0, expected an integer",
    "variants.mlp-numpy.steps=true": "variants.mlp-numpy.steps: True, expected an integer",
    "variants.mlp-numpy.steps='3'": "expected an integer; YAML took it for text: write 3 without quotes",
    "variants.mlp-numpy.steps=1e3": "'1e3', expected an integer; YAML took it for text: write 1000",
    "variants.mlp-numpy.steps='1.5'": "steps: '1.5', expected an integer",
    "variants.mlp-numpy.learning_rate=1e-3": "expected a number; YAML took it for text: write 1.0e-3",
    "variants.mlp-numpy.learning_rate=1.5e3": "write 1.5e+3",
    "search.mlp-grid.grid=[{setting: momentum, values: [1e-3]}]": "grid.momentum: '1e-3', expected a number; YAML took",
    "variants.mlp-numpy.initial_std=true": "variants.mlp-numpy.initial_std: True, expected a number or null",
    "variants.mlp-numpy.initial_std=1e-4": "expected a number or null; YAML took it for text: write 1.0e-4",
    "variants.mlp-numpy.flip=1": "variants.mlp-numpy.flip: 1, expected true or false",
    "variants.mlp-numpy.momentum=1": "variants.mlp-numpy.momentum: 1, expected less than 1",
    "variants.mlp-numpy.hidden=100": "variants.mlp-numpy.hidden: 100, expected a list",
    "variants.mlp-numpy.hidden=[0]": "variants.mlp-numpy.hidden.0: 0, expected at least 1",
    "variants.mlp-numpy.kind=numpy-mpl": "'numpy-mpl', expected 'numpy-mlp', 'torch-mlp' or 'torch-vgg'; did",
    "variants.mlp-numpy.batch_norm=manual": "variants.mlp-numpy.batch_norm: 'manual', but a numpy-mlp",
    "variants.mlp-numpy.optimiser=adam": "variants.mlp-numpy.optimiser: 'adam'",
    "variants.mlp-torch.like=mlp-nump": "did you mean 'mlp-numpy'",
    "variants.mlp-numpy.like=mlp-torch": "goes round in a circle",
    "variants.vgg.hidden=[3]": "variants.vgg.hidden",
    "variants.mlp-tuned.hidden=[3]": "also chosen by the search 'mlp-grid'",
    "variants.$(rm -rf).steps=3": "a name is small letters and digits",
    "study=../elsewhere": "study: '../elsewhere' is not allowed",
    "study=two words": "study: 'two words' is not allowed",
    "dataset=cifar100": "dataset: 'cifar100' is not among the datasets",
    "datasets.cifar10-jpeg.sha256=abc": "a SHA-256 is 64 hexadecimal digits",
    "datasets.digits.path=here": "datasets.digits: unknown key 'path' = 'here'",
    "datasets.digits.source=cifar": "source: 'cifar', expected 'cifar10', 'image-folder', 'digits'; did you mean",
    "datasets.cifar10-jpeg.source=digits": "datasets.cifar10-jpeg: unknown key 'path'",
    "datasets.mine={path: here}": "datasets.mine: 'source' is missing",
    "datasets.mine={source: image-folder}": "datasets.mine: 'path' is missing",
    "datasets.cifar10.mirrors=[ftp://x]": "mirrors.0: 'ftp://x' is not allowed: an address begins",
    "report.titel=x": "report: unknown key 'titel' = 'x'; did you mean 'title'",
    "report=text": "report: 'text', expected a mapping",
    "dataset=digits": "report.title: is missing, and a report on 'digits' needs one of its own; write for instance",
    "report.title=深い学習": "report.title: '深い学習' has '深' (U+6DF1), which the report's fonts lack; write it",
    "variants.mlp-numpy.label=MLP 👍": "variants.mlp-numpy.label: 'MLP 👍' has '👍' (U+1F44D)",
    "variants.vgg.label=MLP, PyTorch": "variants.mlp-torch.label: 'MLP, PyTorch' is that of 'vgg' too",
    "datasets.cifar10-jpeg.printed={cat: 猫}": "datasets.cifar10-jpeg.printed.cat: '猫' has",
    "practical.accuracies={mlp-numpi: 0.5}": "practical.accuracies: 'mlp-numpi' is not among the variants; did you",
    "practical.accuracies={mlp-numpy: 46.6}": "practical.accuracies.mlp-numpy: 46.6, expected at most 1",
    "run=[mlp-numpi]": "did you mean 'mlp-numpy'",
    "variants.mlp-torch.momentum=0.5": "momentum: 0.5, but the optimiser is adam",
    "variants.mlp-numpy.warmup=0.5": "warmup: 0.5, but the schedule is constant",
    "search.mlp-grid.grid=[{setting: momentum, values: [0, 0.9]}]": "momentum: 0.9, but the optimiser is adam",
    "variants.never-run={like: vggg}": "variants.never-run.like: 'vggg' is not among the variants; did you mean 'vgg'",
    "variants.never-run={like: never-run}": "variants.never-run.like: goes round in a circle",
    "variants.never-run={search: mlp-gird}": "variants.never-run.search: 'mlp-gird' is not among the searches",
    "search.never-run={like: vggg, seeds: [0], grid: [{setting: flip, values: [true]}]}": "never-run.like: 'vggg'",
    "seeds=[]": "seeds: [], expected at least 1 in the list",
    "seeds=[1, 1]": "seeds: has 1 twice, expected each once",
    "validation_images=0": "needs a validation split",
    "search.mlp-grid.grid=[{setting: widths, values: [1]}]": "'widths'",
    "search.mlp-grid.grid=[{setting: steps, values: [-1]}]": "steps",
    "search.mlp-grid.grid=[{setting: hidden, values: [100]}]": "hidden",
    "search.mlp-grid.grid=[{setting: batch_norm, values: [by-hand]}]": "'by-hand', expected 'none', 'autograd'",
    "search.mlp-grid.method=random": "search.mlp-grid.method: 'random'",
    "search.mlp-grid.trials=3": "search.mlp-grid.trials: 3, but a grid draws nothing",
    "search.mlp-grid.method=successive-halving": "'seed' is missing; successive halving takes seed, trials, batch",
    "search.mlp-grid.seed=5": "search.mlp-grid.seed: 5, but a grid has a trial for each seed; write seeds: [5]",
    "search.mlp-grid.seeds=[1, 1]": "search.mlp-grid.seeds: has 1 twice",
    "search.mlp-grid.method=list": "search.mlp-grid: 'configurations' is missing; with method: list",
    "search.mlp-grid.configurations={}": "search.mlp-grid.configurations: stands there, but method: grid takes grid",
    "search.mlp-best-without.configurations.twice={weight_decay: 0}": "twice: is the same as 'weight-decay'",
    "search.mlp-best-without.configurations.kinds={kind: numpy-mlp}": "configurations.kinds.kind: is not for a search",
    "search.mlp-best-without.configurations.Whole={}": "a name is small letters and digits",
    "ablations=[mlp-grid]": "ablations: 'mlp-grid' is no list of configurations",
    "recipes=[vgg-recipes]": "recipes: 'vgg-recipes' is not among the searches; did you mean 'vgg-160k-recipes'",
    "recipes=[zzz]": "'zzz' is not among the searches; there are mlp-best-without, mlp-grid, mlp-halving, ",
    "search.mlp-halving.settings={steps: 8}": "search.mlp-halving.rungs: 3, but 8 steps cannot be reduced so often",
    "search.mlp-halving.seeds=[5, 6]": "search.mlp-halving.seeds: [5, 6], but successive halving has one seed",
    "search.mlp-grid.grid=[{setting: dropout, low: 0, high: 0.5}]": "grid.dropout: is a range, but a grid has values",
    "search.mlp-halving.trials=8": "search.mlp-halving.trials: 8, but 3 rungs, each for one in 3, need 9",
    "search.mlp-halving.batch=19": "search.mlp-halving.batch: 19, but there are 18 trials",
    "search.mlp-halving.rungs=20": "need 1162261467 at least",
    "search.mlp-halving.grid=[{setting: hidden, values: [[3], [4]]}]": "the space holds 2 configurations",
    "search.mlp-halving.grid=[{setting: shift, low: 0, high: 3}]": "trials: 18, but the space holds 4 configurations",
    "search.mlp-halving.grid=[{setting: steps, values: [20, 30]}]": "successive halving sets the steps itself",
    "search.mlp-halving.grid=[{setting: widths, low: 1, high: 2}]": "'widths'",
    "search.mlp-halving.grid=[{setting: dropout, low: 0.3, high: 0.3}]": "grid.dropout: low 0.3 is not below high 0.3",
    "search.mlp-halving.grid=[{setting: dropout, low: 0, high: 1}]": "grid.dropout.high: 1",
    "search.mlp-halving.grid=[{setting: dropout, low: 0}]": "grid.dropout: 'high' is missing",
    "search.mlp-halving.grid=[{setting: dropout, values: [0], low: 0}]": "grid.dropout.low: stands beside 'values'",
    "search.mlp-halving.grid=[{setting: dropout, low: 0, high: 0.5, log: true}]": "begins above 0",
    "search.mlp-halving.grid=[{setting: flip, low: 0, high: 1}]": "the setting is no number; list its values",
    "search.mlp-halving.grid=[{setting: momentum, low: 0, high: 0.9}]": "nesterov: true, but momentum is 0",
    "validation_images=50000": "validation_images: 50000, but 'cifar10' has 50000 training images",
    "defaults.threads=0": "defaults.threads: 0",
    "cores=4": "unknown key 'cores'",
}


@pytest.mark.parametrize("change", WRONG)
def test_the_message_names_the_key_and_the_value(change):
    path, _, value = change.partition("=")
    nested = yaml.safe_load(value or "1")
    for key in reversed(path.split(".") if "$" not in path else ["variants", "$(rm -rf)", "steps"]):
        nested = {key: nested}
    with pytest.raises(InputError) as error:
        load(nested)
    assert WRONG[change] in str(error.value)


def test_a_search_among_optimisers_may_try_one_without_momentum():
    grid = [{"setting": "optimiser", "values": ["sgd", "adam"]}]
    change = {"variants": {"mlp-torch": {"momentum": 0.9}}, "search": {"mlp-grid": {"grid": grid}}}
    change["run"] = ["mlp-tuned"]
    assert load(change).searches["mlp-grid"].base["momentum"] == 0.9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: {c: 1}\na: 2\n", "'a' is in line 1 and again in line 3"),
        ("x:\n  - {b: 0}\n  - b: 1\n    c: 0\n    b: 2\n", "'b' is in line 3 and again in line 5"),
        ("x: {a: 1, a: 2}", "'a' is in line 1 and again in line 1"),
        ("x: {1: a, 2: b,\n 01: c}", "'01' is in line 1 and again in line 2"),
        ("yes: 1\ntrue: 2", "'true' is in line 1 and again in line 2"),
        ("'a': 1\n# a\na: 1", "'a' is in line 1 and again in line 3"),
        ('{"a": 1,\n"b": [],\n"a": 1}', "'a' is in line 1 and again in line 3"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path, text, told):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"overlay.yaml: the key {told}; keep one")):
        config.check_files([path])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: !!bool maybe", "line 2: expected a value of the type bool, found 'maybe'"),
        ('[!!int ""]', "line 1: expected a value of the type int, found ''"),
        ("!!timestamp x: 1", "line 1: expected a value of the type timestamp, found 'x'"),
        ("a: 2001-99-99", "line 1: expected a value of the type timestamp, found '2001-99-99'"),
        ("a: !!bool [1]", "expected YAML, found something else"),
        ("a: {<<: 3}", "expected YAML, found something else"),
    ],
)
def test_a_value_that_does_not_fit_its_tag_is_refused(tmp_path, text, told):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"overlay.yaml: {told}")):
        config.check_files([path])
    with pytest.raises(InputError, match=re.escape(f"overlay.yaml: {told}")):
        claims.load(path)


def test_a_key_may_stand_in_several_mappings_and_replace_a_merged_one(tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: [{<<: *b, x: 3}, {x: 4}]\n")
    assert read_yaml(path) == yaml.safe_load(path.read_text())
    config.check_files([path])


@pytest.mark.parametrize("path", sorted(ROOT.glob("profiles/*/*.yaml")), ids=lambda path: path.parent.name)
def test_no_shipped_profile_has_a_key_twice(path):
    config.check_files([path])


def test_a_template_is_refused(tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text("__use_yte__: true\nstudy: x\n")
    (tmp_path / "list.yaml").write_text("- __use_yte__\n")
    with pytest.raises(InputError, match=r"overlay\.yaml: __use_yte__: is a template, which is a program"):
        config.check_files([tmp_path / "list.yaml", path])
    path.write_text("__use_yte__: false\nstudy: x\n")  # none: Snakemake takes the key out
    config.check_files([path])


def test_values_of_the_command_line_are_those_of_yaml():
    """Snakemake takes numbers as Python does, and leaves what stands in lists and mappings text."""
    text = """
    seeds: [0, 1]
    tensorboard: true
    shifts: {images: 10, variants: [vgg]}
    defaults: {flip: false, evaluation_images: 20}
    variants: {vgg: {learning_rate: 0.01, hidden: [30], initial_std: null, momentum: 1.0e-1, label: "a: b"}}
    datasets: {own: {source: image-folder, path: "~/x"}}
    search: {s: {grid: [{setting: hidden, values: [[100], [1, 2]]}, {setting: dropout, low: 0, high: 0.4, log: true}]}}
    """
    entries = [line.strip().replace(": ", "=", 1) for line in text.strip().splitlines()]
    given: dict = {}
    for entry in entries:
        given |= config.from_command_line(entry)
    assert given == yaml.safe_load(text)
    for entry, value in (("validation_images=010", 8), ("validation_images=1_0", 10), ("study=007", "007")):
        assert list(config.from_command_line(entry).values()) == [value]
    for entry in ("study=123", "study=true", "run=[007, null, true]", "variants={1: {label: 1.0, like: 007}}"):
        (key, value) = next(iter(config.from_command_line(entry).items()))
        text = yaml.load(entry.partition("=")[2], Loader=yaml.BaseLoader)
        assert {key: value} == {key: text}, "text stays text where text is asked for"
    for entry in ('validation_images="100"', "seeds=['0', !!str 1]", 'defaults={initial_std: "null", dropout: ~}'):
        (key, value) = next(iter(config.from_command_line(entry).items()))
        assert value == yaml.safe_load(entry.partition("=")[2]), "and what stands in quotes is text everywhere"
    assert config.from_command_line("study=[x") == {"study": "[x"}, "what is no YAML is text"
    with pytest.raises(InputError, match="--config seeds: line 1: expected a value of the type bool"):
        config.from_command_line("seeds=!!bool x")
    with pytest.raises(InputError, match="--config variants: the key 'a' is in line 1 and again in line 1"):
        config.from_command_line("variants={a: {steps: 1}, a: {steps: 2}}")


def test_the_schema_is_up_to_date():
    """The file for editors says what the types say; `load` does not read it."""
    command = [sys.executable, "-m", "cifar_report.study.document"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert SCHEMA.read_text() == done.stdout, f"run {' '.join(command[1:])} > {SCHEMA.relative_to(ROOT)}"


def test_the_schema_takes_what_is_shipped_and_refuses_what_no_type_takes():
    validator = jsonschema.Draft202012Validator(document.schema())
    validator.check_schema(document.schema())
    for overlay in OVERLAYS:
        assert not list(validator.iter_errors(written(overlay=overlay)))
    for change in ({"study": "two words"}, {"seeds": [1, 1]}, {"datasets": {"digits": {"path": "here"}}}, {"cores": 4}):
        assert not validator.is_valid(written(change))


def test_schema_and_settings_agree():
    """The same names in both, and every neutral default is a value that the schema allows."""
    properties = document.schema()["properties"]["defaults"]["properties"]
    assert set(properties) == set(config.SETTINGS)
    assert set(properties["kind"]["enum"]) == set(KINDS)
    for name, value in config.NEUTRAL.items():
        jsonschema.validate(list(value) if isinstance(value, tuple) else value, properties[name])


def test_kinds_refuse_and_take_settings_that_there_are():
    properties = document.schema()["properties"]["defaults"]["properties"]
    for kind in KINDS.values():
        assert set(kind.refuses) < set(config.NEUTRAL) and not set(kind.refuses) & set(kind.takes)
        assert all(set(values) < set(properties[name]["enum"]) for name, values in kind.takes.items())


def test_no_settings_are_made_of_what_they_cannot_be():
    settings = load().variants["mlp-numpy"].resolved()
    for wrong, words in (
        ({"steps": 0}, "settings: steps: 0, expected at least 1"),
        ({"steps": True}, "settings: steps: True, expected an integer"),
        ({"hidden": [2.0]}, r"settings: hidden.0: 2.0, expected an integer"),
        ({"widths": [3]}, r"settings: unknown key 'widths' = \[3\]"),
    ):
        with pytest.raises(InputError, match=words):
            config.Settings.from_mapping(settings.full() | wrong)
    with pytest.raises(InputError, match="settings: 'kind' is missing"):
        config.Settings.from_mapping({name: value for name, value in settings.full().items() if name != "kind"})


def test_like_inherits_settings_but_no_label():
    torch = load().variants["mlp-torch"]
    assert torch.settings["hidden"] == [100] and torch.settings["initial_std"] is None
    small = load().variants["mlp-torch-adam-small"]
    assert small.label != torch.label


def test_what_was_reproduced_is_told_of_its_own_data_alone():
    """Also where a study of other data is laid over the study that reproduces, and does not take anything back."""
    change = {"validation_images": 100, "report": {"title": "T"}}
    of = {name: load(change | {"dataset": name}) for name in ("cifar10", "cifar10-jpeg", "digits")}
    for name in ("cifar10", "cifar10-jpeg"):
        known = {v.name: v.original_test_accuracy for v in of[name].variants.values() if v.original_test_accuracy}
        assert known == {"mlp-numpy": 0.466, "mlp-torch": 0.438, "mlp-tuned": 0.525, "vgg": 0.79}
        assert (of[name].reproduces, of[name].claims) == (True, "report/claims.yaml")
    assert not any(v.original_test_accuracy for v in of["digits"].variants.values())
    assert (of["digits"].reproduces, of["digits"].claims, of["digits"].report["author"]) == (False, "", "")
    assert load().report["title"] and load({"claims": "mine.yaml"}).claims == "mine.yaml"


def test_canonical_settings_leave_neutral_ones_out():
    settings = load().variants["mlp-numpy"].resolved()
    assert "dropout" not in settings.canonical() and settings.canonical()["slope"] == 0.02
    assert config.Settings.from_mapping(settings.full()) == settings
    assert config.Settings.from_mapping(settings.canonical()) == settings


def test_integers_and_floats_are_one_setting():
    whole, point = (load({"variants": {"mlp-numpy": {"learning_rate": v}}}).variants["mlp-numpy"] for v in (1, 1.0))
    assert config.digest(whole.resolved().canonical()) == config.digest(point.resolved().canonical())


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "results").write_text("a file stands in the way")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/results: expected a folder to write results to")):
        plan.write(load(), {}, tmp_path / "results" / "cifar10")


def test_a_path_that_is_too_long_is_named(tmp_path):
    path = "a" * 300
    study = load(
        {"datasets": {"own": {"source": "image-folder", "path": path}}, "dataset": "own", "report": {"title": "a"}}
    )
    with pytest.raises(InputError, match=f"^{path}: expected to read it, .*, found File name too long"):
        plan.write(study, {}, tmp_path / "results/own/plan")


def test_plan_files_are_rewritten_only_when_they_change(tmp_path):
    plan.write(load(), {}, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    plan.write(load({"variants": {"vgg-no-bn": {"steps": 4999}}}), {}, tmp_path)
    changed = {str(p.relative_to(tmp_path)) for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {"vgg-no-bn.json"}


@pytest.mark.parametrize("spoilt", ['{"settings": {}}', "{}", "[]", "null", "", "{", "another", "one less"])
def test_a_plan_file_that_is_not_what_the_plan_wrote_is_named(tmp_path, capsys, spoilt):
    """Each stage's job stops by the same reader; the next call of Snakemake writes the file anew."""
    folder = tmp_path / "study/plan"
    plan.write(load(), {}, folder)
    assert set(digested(tmp_path / "study")) == {path for path in folder.rglob("*") if path.is_file()}
    path = folder / "stages/summarise.json"
    whole = path.read_text()
    document = json.loads(whole)
    if spoilt == "another":
        path.write_text((folder / "stages/tables.json").read_text().replace('"code": "', '"code": "0'))
    elif spoilt == "one less":
        document["settings"]["variants"].pop()
        path.write_text(json.dumps(document))
    else:
        path.write_text(spoilt)
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "summary", "costs")]
    assert cli.main(["summarise-runs", f"--stage={path}", *places]) == 1
    message = capsys.readouterr().err
    assert str(path) in message and len(message.splitlines()) == 1
    plan.write(load(), {}, folder)
    assert path.read_text() == whole


def test_an_unknown_command_is_told_by_the_nearest(capsys):
    assert cli.main(["explian", "x"]) == 2
    assert "there is no command 'explian'; did you mean 'explain'?" in capsys.readouterr().err


def test_commands_are_listed_in_order(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert len(listed) > 15 and listed == sorted(listed)


def test_each_optimiser_has_a_name_in_print():
    """A new one would train, and then stop the tables."""
    properties = yaml.safe_load(SCHEMA.read_text())["properties"]["defaults"]["properties"]
    assert set(properties["optimiser"]["enum"]) == set(OPTIMISERS)


def test_no_two_trials_of_a_grid_share_their_seed_and_none_changes_it_when_the_grid_grows():
    """Else what main effects take for independent has draws in common."""
    grid = load({}).searches["mlp-grid"]
    seeds = {name: trial.seed for name, trial in grid.trials().items()}
    assert len(set(seeds.values())) == len(seeds) == 4 * 2 * 2 * 3 and all(0 <= seed < 2**32 for seed in seeds.values())
    assert [trial.replicate for trial in grid.trials().values()] == [200, 201, 202] * 16
    larger = dataclasses.replace(
        grid, seeds=(199, *grid.seeds), grid=grid.grid | {"batch_size": [100, *grid.grid["batch_size"]]}
    )
    assert seeds.items() < {name: trial.seed for name, trial in larger.trials().items()}.items()


def test_a_list_has_a_trial_for_each_configuration_and_seed_where_the_study_runs_its_variant():
    study = load({"recipes": ["vgg-160k-recipes"]})
    assert study.ablations == ("mlp-numpy-best-without", "mlp-best-without") and study.recipes == ("vgg-160k-recipes",)
    whole, without = study.variants["mlp-best"].resolved(), study.searches["mlp-best-without"]
    trials = list(without.trials().values())
    assert [trial.seed for trial in trials] == [0, 1, 2] * 7
    shorter = dataclasses.replace(whole, steps=3000, evaluate_every=300, train_on="train")
    assert trials[0].settings == shorter
    assert trials[9].settings == dataclasses.replace(shorter, momentum=0.0, nesterov=False)
    few = load({"run": ["mlp-numpy", "mlp-best"], "recipes": ["vgg-160k-recipes"]})
    assert few.ablations == ("mlp-best-without",) and few.recipes == () and set(few.searches) == {"mlp-best-without"}
