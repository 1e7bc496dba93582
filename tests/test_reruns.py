"""What reruns after which change: exactly the jobs that depend on it, for every key of the config and source file.

The tables say what depends on what, by hand. The plan files before and after a change, and what Snakemake makes from
what, say what would rerun; a sample of the changes is put to Snakemake itself, on a study whose files hold nothing.
"""

import ast
import copy
import functools
import json
import os
import re
import shutil
import subprocess
from fnmatch import fnmatch

import pytest
import yaml
from runs import write_run
from snakemake.utils import update_config
from test_workflow import OVERLAY, PARTS, ROOT, snakemake

from cifar_report.base.errors import InputError
from cifar_report.cli import main
from cifar_report.inspection.explain import FinishedStudy, made_again
from cifar_report.rendering import figures
from cifar_report.study import config, identity, plan

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
# Beside the small study, a second search and a variant of one's own: so that every reference has another value to take.
OTHER = {"like": "mlp-torch", "seeds": [7], "grid": [{"setting": "learning_rate", "values": [0.001, 0.01]}]}

# --- what depends on what ---------------------------------------------------------------------------------------------

# The jobs that read what a job makes. The jobs of a variant are named after it, those of the search `trials`.
FIGURES_AND_CLAIMS = {"draw_figures", "test_claims"}
READERS = {
    "prepare_dataset": {
        *("trials", "mlp-numpy", "mlp-tuned", "vgg", "measure_shifts", "measure_flips", "write_tables"),
        "measure_batch_statistics",
        "measure_agreement",
        *FIGURES_AND_CLAIMS,
    },
    "trials": {"select_trial", "tabulate_search", *FIGURES_AND_CLAIMS},
    "select_trial": {"mlp-tuned"},
    "tabulate_search": {"write_tables", "write_pages", *FIGURES_AND_CLAIMS},
    "mlp-numpy": {"summarise_runs", "write_events", "measure_flips", "write_tables", *FIGURES_AND_CLAIMS},
    "mlp-torch": {"summarise_runs", "write_events", "write_tables", *FIGURES_AND_CLAIMS},
    "mlp-tuned": {"summarise_runs", "write_events", "measure_shifts", "write_tables", *FIGURES_AND_CLAIMS},
    "vgg": {
        "summarise_runs",
        "write_events",
        "measure_shifts",
        "measure_batch_statistics",
        "write_tables",
        *FIGURES_AND_CLAIMS,
    },
    "measure_shifts": {"test_claims", "draw_figures"},
    "measure_flips": {"write_tables"},
    "measure_batch_statistics": {"write_tables"},
    "measure_agreement": {"test_claims", "write_tables"},
    "summarise_runs": {"write_tables", "write_pages", "render_html"},
    "write_events": {"render_html"},
    "test_claims": {"write_tables", "write_pages", "render_report", "render_html"},
    "draw_figures": {"write_tables", "write_pages", "render_report"},
    "check_equations": {"render_report", "write_pages"},
    "write_tables": {"render_report"},
    "render_report": {"render_html"},
    "write_pages": {"render_html"},
    "render_html": set(),
}
EVERYTHING = set(READERS) - {"mlp-torch"}  # which is not of the study's `run`

# The jobs that a key of the config itself decides, without their readers. `+`: only the new runs, not those there are.
# The first row whose pattern fits counts. Snakemake's HTML report shows the whole config: every key remakes that.
ROWS = {"summarise_runs", "write_events", "write_tables", *FIGURES_AND_CLAIMS}  # what has a row or a curve a run
LABELS = {"write_tables", "write_pages", "draw_figures"}
KEYS = {
    "study": EVERYTHING,
    "report.*": {"write_tables"},
    "dataset": {"prepare_dataset", "summarise_runs", "test_claims", *LABELS},  # those of the practical are others
    "claims": {"test_claims"},
    "practical.*": set(),  # it is of other data
    "validation_images": {"prepare_dataset"},
    "datasets.digits.source": {"prepare_dataset"},
    "datasets.*": set(),  # not the one selected
    "seeds": {"mlp-numpy+", "mlp-tuned+", "measure_shifts", "measure_flips", *ROWS},  # the VGG has its own
    "run": {"mlp-torch", *ROWS},
    "defaults.train_on": {"mlp-numpy", "mlp-tuned", "vgg"},  # a search always trains on the training split
    "defaults.evaluate_every": set(),  # each has its own, or that of mlp-numpy
    "defaults.evaluation_images": {"mlp-numpy", "mlp-tuned", "trials"},
    "defaults.*": {"mlp-numpy", "mlp-tuned", "vgg", "trials"},
    "variants.mlp-numpy.label": LABELS,
    "variants.mlp-tuned.label": LABELS,
    "variants.vgg.label": LABELS,
    "variants.*.label": set(),
    "variants.vgg.seeds": {"vgg+", "measure_shifts", "measure_batch_statistics", *ROWS},
    "variants.mlp-numpy.kind": {"mlp-numpy"},  # mlp-torch, and with it mlp-tuned and the search, has its own of these
    "variants.mlp-numpy.initial_std": {"mlp-numpy"},
    "variants.mlp-numpy.batch_size": {"mlp-numpy"},  # is searched
    "variants.mlp-numpy.*": {"mlp-numpy", "mlp-tuned", "trials"},
    "variants.mlp-torch.*": {"mlp-tuned", "trials"},
    "variants.mlp-tuned.search": {"trials", "select_trial", "mlp-tuned"},
    "variants.mlp-tuned.like": {"mlp-tuned"},
    "variants.mlp-tuned.seeds": {"mlp-tuned+", "measure_shifts", *ROWS},
    "variants.vgg.*": {"vgg"},
    "variants.*": set(),  # not of `run`, and nothing of it is like them
    "search.mlp-grid.grid": {"trials+"},
    "search.mlp-grid.like": {"trials"},
    "search.mlp-grid.seeds": {"trials+"},
    "search.*": set(),  # of no variant of `run`
    "shifts.variants": {"measure_shifts", "draw_figures"},
    "ablations": set(),  # neither are these
    "recipes": set(),
    "shifts.*": {"measure_shifts"},
    "test_time_flips.*": {"measure_flips"},
    "batch_statistics.*": {"measure_batch_statistics"},
    "agreement.*": set(),  # no pair of the variants that this study runs
    "tensorboard": set(),  # switched off; what follows when it is switched on has a test of its own
}

# The modules that each job computes with. A run's are those that decide its numbers, not those that keep it
# (runs/store.py), describe it (runs/machine.py) or call it (cli.py). Those that write the plan (study/plan.py) belong
# to no job: what they decide stands in the plan itself.
BASE = {"base/errors.py", "base/files.py"}
LOOP = {"training/loop.py", "training/splits.py", "training/batches.py", "base/randomness.py"}
RUNS = LOOP | {"base/files.py", "study/kinds.py"}  # the digests of the arrays, and the entries of a kind
NUMPY = RUNS | {"training/numpy_trainer.py", *(f"models/numpy_nn/{name}.py" for name in ("modules", "mlp", "sgd"))}
TORCH = RUNS | {"training/torch_trainer.py", "models/torch_nn/initial.py", "models/torch_nn/convolution.py"}
TORCH_MLP = TORCH | {"models/torch_nn/mlp.py", "models/torch_nn/batchnorm.py"}
TORCH_VGG = TORCH | {"models/torch_nn/vgg.py"}
STUDY = {"study/kinds.py", "study/settings.py", "base/validation.py"}
READ = BASE | STUDY | {"runs/finished.py", "runs/record.py"}
READ |= {f"training/{name}.py" for name in ("batches", "loop", "splits")}
DATA = BASE | {
    "base/randomness.py",
    "base/letters.py",
    "base/validation.py",
    *(f"data/{name}.py" for name in ("archives", "datasets", "downloads", "sources")),
}
TRAINED = {"runs/devices.py", "runs/machine.py"}
PERTURBED = READ | DATA | TRAINED | {"analysis/perturbed.py", "analysis/measurements.py"}
FACTS = {f"analysis/{name}.py" for name in ("compatibility", "noise", "searches", "statistics", "summary")}
FACTS |= {"base/randomness.py"}
FIGURES = ("accuracy", "catalogue", "predictions", "searches", "shifts", "style", "weights")
MODULES = {
    "prepare_dataset": DATA,
    "mlp-numpy": NUMPY,
    "mlp-tuned": TORCH_MLP,
    "trials": TORCH_MLP,
    "vgg": TORCH_VGG,
    "select_trial": READ | FACTS | {"analysis/selection.py"},
    "tabulate_search": READ | {"analysis/searches.py", "analysis/statistics.py"},
    "summarise_runs": READ | FACTS - {"analysis/searches.py"},
    "write_events": READ | {"rendering/events.py"},
    "measure_shifts": PERTURBED,
    "measure_flips": PERTURBED,
    "measure_batch_statistics": PERTURBED,
    "measure_agreement": (BASE | STUDY | DATA | NUMPY | TORCH_MLP | TORCH_VGG)
    | {"analysis/agreement.py", "analysis/measurements.py"},
    "draw_figures": READ
    | DATA
    | FACTS
    | {"analysis/measurements.py", "analysis/selection.py", *(f"rendering/figures/{name}.py" for name in FIGURES)},
    "write_tables": READ
    | DATA
    | FACTS
    | {f"analysis/{name}.py" for name in ("ablations", "first_loss", "measurements", "selection")}
    | {"runs/devices.py", "runs/machine.py"}
    | {f"analysis/claims/{name}.py" for name in ("file", "comparisons", "verdicts")}
    | {f"rendering/{name}.py" for name in ("claims", "latex", "layers", "numbers", "tables", "words")},
    "test_claims": READ
    | FACTS
    | {f"analysis/claims/{name}.py" for name in ("file", "comparisons", "verdicts")}
    | {"analysis/measurements.py"}
    | {"base/letters.py", "rendering/claims.py", "rendering/latex.py"},
    "write_pages": BASE | {"rendering/equations.py", "rendering/pages.py", "study/displays.py"},
    "check_equations": (NUMPY | TORCH_MLP | TORCH_VGG | BASE | STUDY) - {"training/loop.py", "training/splits.py"}
    | {"rendering/equations.py", "study/displays.py"},
}
# A stage is made again for any edit of its modules, and of the packages that they lie in; a run for what it reaches.
for job in set(MODULES) - {"mlp-numpy", "mlp-tuned", "trials", "vgg"}:
    MODULES[job] = MODULES[job] | {
        f"{'/'.join(module.split('/')[:depth])}/__init__.py".lstrip("/")
        for module in MODULES[job]
        for depth in range(module.count("/") + 1)
    }
SOURCES = {
    "report/*.tex": {"render_report"},  # the equations are read by check_equations, the text around them is not
    "report/*.bib": {"render_report"},
    "report/demo-claims.yaml": {"test_claims"},
    "report/claims.yaml": set(),  # of the practical
    "tests/equations/*.py": {"check_equations"},
    "workflow/scripts/render-report": {"render_report"},
    "workflow/report/*": {"write_pages"},
    "workflow/*": set(),  # what a rule says is Snakemake's own matter, see test_workflow
    "src/cifar_report/*": set(),  # but see MODULES
}


def with_readers(jobs):
    """Jobs and all that read what they make, directly or not."""
    found, waiting = set(), set(jobs)
    while waiting:
        job = waiting.pop()
        found.add(job)
        waiting |= READERS[job.removesuffix("+")] - found
    return found


def row(table, name):
    """What the first pattern of a table that fits says."""
    return next(jobs for pattern, jobs in table.items() if fnmatch(name, pattern))


def roots(file):
    """The jobs that a source file decides."""
    module = file.removeprefix("src/cifar_report/")
    using = {job for job, modules in MODULES.items() if file != module and module in modules}
    return row(SOURCES, file) | using


# --- what would rerun -------------------------------------------------------------------------------------------------


LAYERS = [yaml.safe_load((ROOT / name).read_text()) for name in ("config.yaml", "config/demo.yaml")]


def merged(**changes):
    """The small study's configuration after all overlays."""
    whole = {}
    for layer in (*LAYERS, OVERLAY | changes):
        update_config(whole, copy.deepcopy(layer))
    update_config(whole, {"search": {"other": OTHER}})
    return whole


def checkout(folder):
    """The parts of the repository that Snakemake reads."""
    for part in PARTS:
        make = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        make(ROOT / part, folder / part)
    return folder


def jobs_planned(folder, *arguments):
    """The jobs of a dry run: rule, inputs and outputs of each, named as in results/, and its variant if it has one."""
    output = snakemake(folder, "report", "--dry-run", *arguments)[1]
    jobs = []
    for block in re.split(r"^(?:local)?rule ", output, flags=re.MULTILINE)[1:]:
        listed = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        if "output" in listed:
            names = (listed[key].replace("results/", "").split(", ") for key in ("input", "output"))
            jobs.append((block.partition(":")[0], *map(set, names)))
    return jobs


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A function: each plan file's content and each file's rule and inputs, named as in results/.

    Snakemake is asked once what it makes from what for each set of runs, searches and figures. What else a study may
    change is told by the plan's contents alone, but for the names of trials, which are digests of their settings.
    """
    folder = checkout(tmp_path_factory.mktemp("planned"))
    known = {}

    def ask(document, root=ROOT):
        study = config.load(document)
        plans = plan.documents(study, root)
        stages = {name: plans[f"stages/{name}"]["settings"] for name in plan.STAGES}
        trials = [
            f"{search}/{trial}" for search, entry in stages["search"].items() for trial in entry.get("trials", ())
        ]
        key = repr([study.name, [name for name in plans if name.count("/") < 2], len(trials), document["tensorboard"]])
        key += repr([[(v["name"], v["seeds"], v.get("search")) for v in stages["tables"]["variants"]]])
        key += repr([[v["name"] for v in stages[name]["variants"]] for name in ("shifts", "flips", "batch-statistics")])
        key += repr(figures.names(stages["figures"]))
        if key not in known:
            write_config(folder, document)
            known[key] = trials, jobs_planned(folder, "--forceall")
        renamed = dict(zip(known[key][0], trials, strict=True))

        def now(names):
            return {re.sub(r"(?<=search/)[\w-]+/[0-9a-f]{16}", lambda name: renamed[name[0]], name) for name in names}

        files = {file: (rule, now(inputs)) for rule, inputs, outputs in known[key][1] for file in now(outputs)}
        contents = {f"{study.name}/plan/{name}.json": json.dumps(plan) for name, plan in plans.items()}
        return contents | {f"{study.name}/plan/config.yaml": json.dumps(document)}, files

    return ask


def would_rerun(before, after):
    """The jobs that rerun when one state becomes another, with `+` where a group's new ones alone do.

    A job reruns where an output is new, where its set of inputs changed, or where an input changed or is made again.
    """
    (old_contents, old_files), (contents, files) = before, after

    @functools.cache
    def again(file):
        if file not in files:
            return old_contents.get(file) != contents.get(file)
        rule, inputs = files[file]
        return file not in old_files or old_files[file] != (rule, inputs) or any(map(again, inputs))

    groups = {}
    for file, (rule, _) in files.items():
        groups.setdefault(group(rule, file), set()).add(file)
    jobs = set()
    for name, members in groups.items():
        rerun = {file for file in members if again(file)}
        if rerun and rerun != members and rule_of(name) in ("train_variant", "train_trial"):
            assert rerun == {file for file in members if file not in old_files}, name
            jobs.add(f"{name}+")
        elif rerun:
            jobs.add(name)
    return jobs


def group(rule, file):
    return file.split("/")[2] if rule == "train_variant" else "trials" if rule == "train_trial" else rule


def rule_of(name):
    return "train_trial" if name == "trials" else name if "_" in name else "train_variant"


@pytest.fixture(scope="module")
def before(state):
    """The study as it is."""
    return state(merged())


def leaves(document, where=()):
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, (*where, key))
        else:
            yield (*where, key)


# --- every key --------------------------------------------------------------------------------------------------------

SETTINGS = yaml.safe_load(SCHEMA.read_text())["properties"]["defaults"]["properties"]
# Other values of the keys that are no settings: the first row that fits.
VALUES = {
    "study": "elsewhere",
    "report.best.*": ["vgg-long"],
    "report.*": "Other words",
    "dataset": "cifar10-jpeg",
    "claims": "report/claims.yaml",
    "practical.datasets": [],
    "practical.accuracies.*": 0.123,
    "practical.*": "Other words",
    "validation_images": 201,
    "datasets.cifar10.source": "digits",
    "datasets.*.source": "cifar10",
    "datasets.*.mirrors": ["https://example.org/cifar-10-python.tar.gz"],
    "datasets.*.path": "elsewhere.tar",
    "datasets.*.sha256": "0" * 64,
    "seeds": [0, 1, 7],
    "variants.*.seeds": [0, 9],
    "run": ["mlp-numpy", "mlp-torch", "mlp-tuned", "vgg"],
    "variants.*.label": "Another name",
    "variants.mlp-torch.like": "vgg",
    "variants.mlp-bn-torch.like": "mlp-wide",
    "*.like": "mlp-bn-torch",
    "variants.*.search": "other",
    "search.*.seed": 1,
    "search.*.seeds": [100, 101, 102, 103],
    "search.*.method": "grid",
    "ablations": ["mlp-best-without"],
    "recipes": ["vgg-160k-recipes"],
    "search.mlp-grid.grid": [{"setting": "batch_size", "values": [20, 50, 100]}],
    "search.*.grid": [{"setting": "momentum", "values": [0.5, 0.9]}],
    "search.mlp-halving.trials": 10,
    "search.mlp-halving.batch": 4,
    "search.mlp-halving.reduction": 2,
    "search.mlp-halving.rungs": 2,
    "search.mlp-halving.workers": 2,
    "shifts.variants": ["vgg"],
    "shifts.images": 21,
    "test_time_flips.variants": ["vgg"],
    "batch_statistics.variants": ["mlp-tuned"],
    "agreement.pairs": [["mlp-numpy", "mlp-torch-sgd"]],
    "tensorboard": False,
}
# Where there is no other value that goes with the rest, the study is refused and nothing runs at all.
REFUSED = {
    "datasets.cifar10.source": "unknown key 'mirrors'",
    "datasets.cifar10-jpeg.source": "unknown key 'path'",
    "search.mlp-halving.method": "but a grid has a trial for each seed",
    **{f"search.{name}.method": "'grid' is missing" for name in ("mlp-best-without", "mlp-numpy-best-without")},
    "search.vgg-160k-recipes.method": "'grid' is missing",
    "search.mlp-halving.grid": "the space holds 2 configurations",
    "variants.mlp-numpy.optimiser": "numpy-mlp takes sgd",
    "variants.mlp-torch.kind": "torch-vgg has no such setting",
    "variants.vgg.kind": "numpy-mlp",
}


def another(key, value):
    """Another value of a key, such as the schema allows."""
    schema = SETTINGS.get(key.rpartition(".")[2])
    if schema is None:
        return row(VALUES, key)
    if "enum" in schema:
        return schema["enum"][(schema["enum"].index(value) + 1) % len(schema["enum"])]
    if schema["type"] == "array":
        return [7]
    return (
        not value if schema["type"] == "boolean" else value + 1 if schema["type"] == "integer" else (value or 0.5) / 2
    )


def changed(key, value):
    document = merged()
    *where, last = key.split(".")
    functools.reduce(lambda inner, name: inner[name], where, document)[last] = value
    return document


KEYS_OF_CONFIG = [".".join(where) for where in leaves(merged())]


@pytest.mark.parametrize("key", KEYS_OF_CONFIG)
def test_a_key_reruns_what_depends_on_it_and_nothing_else(before, state, key):
    value = functools.reduce(lambda inner, name: inner[name], key.split("."), merged())
    document = changed(key, another(key, value))
    assert document != merged()
    if key in REFUSED:
        with pytest.raises(InputError, match=REFUSED[key]):
            config.load(document)
    else:
        assert would_rerun(before, state(document)) == with_readers(row(KEYS, key) | {"render_html"})


NEEDED = {
    "momentum": {"optimiser": "sgd"},
    "nesterov": {"optimiser": "sgd", "momentum": 0.9},
    "warmup": {"schedule": "one-cycle"},
    "alternate_flips": {"flip": True},
    "bias_rate": {"batch_norm": "manual"},
}


@pytest.mark.parametrize("setting", sorted(set(SETTINGS) - {"kind", "batch_size", "dirac"}))
def test_a_setting_of_one_variant_reruns_that_one(before, state, setting):
    """Those that nobody has set as well; the kind, what is searched and what a VGG alone has cannot be set there."""
    document = merged()
    entry = document["variants"]["mlp-tuned"]
    entry |= NEEDED.get(setting, {})
    was = config.load(document).variants["mlp-tuned"].settings.get(setting, config.NEUTRAL.get(setting))
    entry[setting] = another(setting, was)
    assert would_rerun(before, state(document)) == with_readers({"mlp-tuned", "render_html"})


def test_a_variant_less_retrains_nothing(before, state):
    after = state(merged(run=["mlp-tuned", "vgg"]))
    assert would_rerun(before, after) == with_readers({*ROWS, "measure_flips", "render_html"})


def test_event_files_rerun_nothing_else(before, state):
    without = state(merged(tensorboard=False))
    assert would_rerun(without, before) == {"write_events", "render_html"}


def test_the_order_of_keys_means_nothing_but_to_the_page_that_shows_it(before, state):
    document = merged()
    document["variants"] = dict(sorted(document["variants"].items()))
    document["variants"]["vgg"] = dict(reversed(document["variants"]["vgg"].items()))
    catalogue = {"test_claims"}  # lists all variants, for the hint where a claim names none of them
    assert would_rerun(before, state(document)) == with_readers({"render_html", *catalogue})


# --- every source file ------------------------------------------------------------------------------------------------

FOLDERS = ("src/cifar_report", "report", "workflow", "tests/equations")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the source files, and the plan's digests taken from there."""
    root = tmp_path_factory.mktemp("sources")
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, root / file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "PACKAGE", root / "src/cifar_report")
        yield root


def more(text):
    """A module with one more constant, and a statement more in each function."""
    tree = ast.parse(text)
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        node.body += ast.parse("if 0: 1 + 1").body
    return ast.unparse(tree) + "\nADDED = 1\n"


def after_edit(state, root, file, edit):
    path = root / file
    whole = path.read_text()
    path.write_text(edit(whole))
    try:
        return state(merged(), root)
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("file", FILES)
def test_a_file_reruns_what_depends_on_it_and_nothing_else(before, state, sources, file):
    edit = more if file.endswith(".py") else "{}\n".format
    assert would_rerun(before, after_edit(state, sources, file, edit)) == with_readers(roots(file))


def test_a_comment_in_each_module_reruns_nothing(before, state, sources):
    modules = [sources / file for file in FILES if file.startswith("src/")]
    whole = {path: path.read_text() for path in modules}
    for path in modules:
        path.write_text(f"{whole[path]}\n# a comment\n")
    assert would_rerun(before, state(merged(), sources)) == set()
    for path in modules:
        path.write_text(whole[path])


def test_a_display_is_checked_again_where_it_prints_something_else(before, state, sources):
    for file, old, new in (
        ("report/sections/batches.tex", r"w-\eta\,g", r"w+\eta\,g"),
        ("report/preamble.tex", r"\newcommand{\had}{\odot}", r"\newcommand{\had}{\oslash}"),
    ):
        assert old in (sources / file).read_text()
        after = after_edit(state, sources, file, lambda text, old=old, new=new: text.replace(old, new))
        assert would_rerun(before, after) == with_readers({"check_equations", "render_report"})


def test_the_tables_have_no_idle_rows():
    """Each row is the first that fits some key or file, and each module named exists."""
    for table, names in ((KEYS, KEYS_OF_CONFIG), (SOURCES, FILES), (VALUES, KEYS_OF_CONFIG)):
        fitting = [[pattern for pattern in table if fnmatch(name, pattern)] for name in names]
        assert {patterns[0] for patterns in fitting if patterns} == set(table)
    modules = {file.removeprefix("src/cifar_report/") for file in FILES}
    assert set().union(*MODULES.values()) <= modules


def test_the_tests_of_equations_import_nothing_that_their_stage_leaves_out():
    text = "".join(path.read_text() for path in (ROOT / "tests/equations").glob("*.py"))
    names = [
        f"{module}.{name.split()[0]}"
        for module, listed in re.findall(r"^\s*from cifar_report([\w.]*) import ([\w, ]+)", text, re.MULTILINE)
        for name in listed.split(", ")
    ]
    paths = {
        path for name in names for path in (name[1:].replace(".", "/"), name[1:].rpartition(".")[0].replace(".", "/"))
    }
    modules = {f"{path}.py" for path in paths if (ROOT / f"src/cifar_report/{path}.py").is_file()}
    assert len(modules) > 5 and modules <= MODULES["check_equations"]


# --- Snakemake's own word ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The small study with results that hold nothing, which Snakemake takes for made."""
    folder = checkout(tmp_path_factory.mktemp("study"))
    write_config(folder, merged())
    made = {file: rule for rule, _, outputs in jobs_planned(folder, "--forceall") for file in outputs}
    results = folder / "results/small"
    for file in made:
        (results.parent / file).parent.mkdir(parents=True, exist_ok=True)
        (results.parent / file).write_text(file)
    (results / "search/mlp-grid/selected.yaml").write_text("settings: {batch_size: 20}\n")
    digests = {path.stem: path.name for path in (results / "dataset").glob("*.npy")}
    counts = {"train": 1237, "validation": 200, "test": 360}
    description = {"name": "digits", "source": "digits", "class_names": list("0123456789"), "shape": [1, 32, 32]}
    (results / "dataset/dataset.json").write_text(json.dumps(description | {"counts": counts, "sha256": digests}))
    for file, rule in made.items():
        if rule in ("train_variant", "train_trial") and file.endswith("run.json"):
            write_run(results, file.removeprefix("small/").removesuffix("/run.json"), digests)
    snakemake(folder, "report", "--touch", "--forceall")
    return folder


def write_config(folder, document):
    """As the last overlay; lists are replaced by it, and so is every key that it has."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump(document))


def jobs_of(folder):
    """The jobs of a dry run, each as its rule, variant or `trials`; `cifar-report explain` agrees on every file."""
    planned = [(group(rule, file), file) for rule, _, outputs in jobs_planned(folder) for file in outputs]
    study = FinishedStudy(folder / "results/small")
    again = {file for file in study.records if " would be made again: " in made_again(file, study)}
    remade = {file.removeprefix("small/") for _, file in planned}
    assert again == remade & set(study.records)
    return {name for name, _ in planned}


SAMPLE = ["report.title", "seeds", "variants.vgg.label", "variants.mlp-torch.optimiser", "search.mlp-grid.grid"]


@pytest.mark.parametrize("key", SAMPLE)
def test_snakemake_agrees_on_a_key(study, key):
    value = functools.reduce(lambda inner, name: inner[name], key.split("."), merged())
    write_config(study, changed(key, another(key, value)))
    expected = {job.removesuffix("+") for job in with_readers(row(KEYS, key) | {"render_html"})}
    assert jobs_of(study) == expected
    if key == "variants.mlp-torch.optimiser":
        assert made_again("runs/mlp-tuned/seed-1/curve.csv", FinishedStudy(study / "results/small")) == (
            "runs/mlp-tuned/seed-1/curve.csv would be made again: "
            "optimiser is adamw now and was adam (plan/mlp-tuned.json)."
        )
    write_config(study, merged())


@pytest.mark.parametrize("file", ["report/demo-claims.yaml", "report/sections/data.tex"])
def test_snakemake_agrees_on_a_file_however_old_it_is(study, file):
    path = study / file
    whole = path.read_text()
    path.write_text(whole + "\n")
    os.utime(path, (1, 1))
    assert jobs_of(study) == with_readers(roots(file))
    path.write_text(whole)


def test_snakemake_reruns_nothing_once_all_is_as_it_was(study):
    """Toggled back and forth, touched all over, and with `.snakemake/` lost: its records lie beside the results."""
    for path in [*(study / "report").rglob("*"), *(study / "results/small").rglob("*")]:
        path.touch()
    shutil.rmtree(study / ".snakemake")
    assert jobs_of(study) == set()


def test_a_forgotten_variant_is_trained_again_though_the_report_is_there(study, tmp_path):
    subprocess.run(["cp", "-a", f"{study}/.", tmp_path], check=True)
    results = tmp_path / "results/small"
    (tmp_path / "store").mkdir()
    assert main(["forget", "mlp-numpy", "--results", str(results), "--store", str(tmp_path / "store")]) == 0
    assert jobs_of(tmp_path) == with_readers({"mlp-numpy"})


def test_snakemake_agrees_in_a_clone_with_the_results_copied_in(study, tmp_path):
    """The times of the copies say nothing, as they are all new and in no order. One setting and one source differ."""
    for part in (*PARTS, "overlay.yaml"):
        make = shutil.copytree if (study / part).is_dir() else shutil.copy2
        make(study / part, tmp_path / part)
    document = changed("variants.vgg.steps", 3)
    write_config(tmp_path, document)
    (tmp_path / "report/demo-claims.yaml").write_text((study / "report/demo-claims.yaml").read_text() + "\n")
    subprocess.run(["cp", "-r", study / "results", tmp_path / "results"], check=True)
    assert jobs_of(tmp_path) == with_readers({"vgg", "test_claims", "render_html"})
    write_config(tmp_path, merged())
    shutil.copy2(study / "report/demo-claims.yaml", tmp_path / "report/demo-claims.yaml")
    assert jobs_of(tmp_path) == set()
