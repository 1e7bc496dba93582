r"""Where a number, table, figure or file of a study comes from: back to runs, settings, code, commit and data.

`RULES` says which rule makes each file and from what; a test holds it against Snakemake's own plan of the same study.
"""

import difflib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.rendering import figures, pages
from cifar_report.rendering.latex import plain
from cifar_report.rendering.tables import TABLES, shortened
from cifar_report.study import plan
from cifar_report.study.config import Settings
from cifar_report.study.identity import run_identity


class Rule(NamedTuple):
    """A rule of the workflow, and patterns of what it makes and what it reads, named from the study's folder.

    A wildcard that an output binds keeps its value in the inputs; any other stands for all that the plan has.
    """

    name: str
    outputs: list[str]
    inputs: list[str]


# What the wildcards of the patterns may be together, a dictionary a combination: see `_wildcards`.
Wildcards = list[list[dict[str, str]]]

REPOSITORY = "repository:"  # begins the pattern of a file that belongs to the sources, not to the study
_RUN, _TRIAL = "runs/{variant}/seed-{seed}", "search/{search}/{trial}"
_TRAINING = [f"dataset/{split}-{part}.npy" for split in ("train", "validation") for part in ("images", "labels")]
_DATASET = [*_TRAINING, "dataset/test-images.npy", "dataset/test-labels.npy"]
_DESCRIPTION = "dataset/dataset.json"
_RUNS = [f"{_RUN}/run.json", f"{_RUN}/curve.csv"]
_TRIALS = [f"{_TRIAL}/run.json", f"{_TRIAL}/curve.csv"]
_DRAWN = "search/{drawing_search}/trials.json"  # of the searches that draw their trials
_SEARCH = "{table_of_searches}"
_EVENTS = "tensorboard/{logged}/seed-{its_seed}/events.out.tfevents"
_SOURCES = {
    stage: [REPOSITORY + pattern.replace("/**", "") for pattern in plan.SOURCES[stage]] for stage in plan.SOURCES
}
_NUMBERS = ["numbers.tex", "numbers.json", *(f"tables/{name}.tex" for name in TABLES)]
_CLAIMS = ["claims.json", "tables/claims.tex", "tables/claims-text.tex"]
_PAGES = ["html/{page}.html"]
_CAPTIONS = ["html/workflow.rst", "html/report.rst", "html/{page}.rst", "html/figures/{figure}.rst", "html/style.css"]
_EQUATIONS = ["equations.json", "tables/equations.tex", "tables/equations-table.tex"]

RULES = (
    Rule("prepare_dataset", [*_DATASET, _DESCRIPTION], ["plan/stages/prepare.json"]),
    Rule("train_trial", _TRIALS, ["plan/search/{search}/{trial}.json", *_TRAINING, _DESCRIPTION]),
    Rule("search_halving", [_DRAWN], ["plan/halving/{drawing_search}.json", *_TRAINING, _DESCRIPTION]),
    Rule(
        "select_trial",
        ["search/{search}/selected.yaml"],
        ["plan/select/{search}.json", f"{_TRIAL}/run.json", "{trials_of_search}"],
    ),
    Rule("tabulate_search", ["search.csv"], ["plan/stages/search.json", *_TRIALS, _DRAWN]),
    Rule(
        "train_variant",
        [*_RUNS, f"{_RUN}/model.safetensors", f"{_RUN}/test-logits.npy"],
        ["plan/{variant}.json", "search/{search_of_variant}/selected.yaml", *_DATASET, _DESCRIPTION],
    ),
    Rule("summarise_runs", ["summary.csv", "costs.csv"], ["plan/stages/summarise.json", *_RUNS]),
    Rule(
        "measure_shifts",
        ["shifts.csv"],
        [
            "plan/stages/shifts.json",
            *(f"runs/{{shifted}}/seed-{{seed}}/{name}" for name in ("run.json", "curve.csv", "model.safetensors")),
            *_DATASET,
            _DESCRIPTION,
        ],
    ),
    Rule(
        "measure_flips",
        ["flips.csv"],
        [
            "plan/stages/flips.json",
            *(f"runs/{{flipped}}/seed-{{seed}}/{name}" for name in ("run.json", "curve.csv", "model.safetensors")),
            "runs/{flipped}/seed-{seed}/test-logits.npy",
            *_DATASET,
            _DESCRIPTION,
        ],
    ),
    Rule("write_events", [_EVENTS], ["plan/stages/events.json", *_RUNS]),
    Rule(
        "test_claims",
        _CLAIMS,
        [
            *_SOURCES["claims"],
            "plan/stages/claims.json",
            *_RUNS,
            f"{_RUN}/test-logits.npy",
            *_TRIALS,
            _DRAWN,
            _SEARCH,
            "shifts.csv",
            *_DATASET,
            _DESCRIPTION,
        ],
    ),
    Rule(
        "draw_figures",
        ["figures/{figure}.pdf", "figures/{figure}.svg", "figures/figures.json"],
        [
            "plan/stages/figures.json",
            *_RUNS,
            f"{_RUN}/model.safetensors",
            f"{_RUN}/test-logits.npy",
            *_TRIALS,
            _DRAWN,
            _SEARCH,
            *_DATASET,
            _DESCRIPTION,
        ],
    ),
    Rule("check_equations", _EQUATIONS, [*_SOURCES["equations"], "plan/stages/equations.json"]),
    Rule(
        "write_tables",
        _NUMBERS,
        [
            "plan/stages/tables.json",
            "summary.csv",
            "flips.csv",
            *_RUNS,
            f"{_RUN}/test-logits.npy",
            _SEARCH,
            "dataset/test-images.npy",
            "dataset/test-labels.npy",
            "claims.json",
            "figures/figures.json",
            _DESCRIPTION,
        ],
    ),
    Rule(
        "render_report",
        ["report.pdf"],
        [
            *_SOURCES["report"],
            "plan/stages/report.json",
            *_NUMBERS,
            *_CLAIMS,
            "figures/{figure}.pdf",
            *_EQUATIONS,
        ],
    ),
    Rule(
        "write_pages",
        [*_PAGES, *_CAPTIONS],
        [
            *_SOURCES["html"],
            "plan/stages/html.json",
            "summary.csv",
            "costs.csv",
            "claims.json",
            "figures/figures.json",
            _SEARCH,
            _DESCRIPTION,
        ],
    ),
    Rule(
        "render_html",
        ["report.html"],
        [
            "plan/config.yaml",
            "report.pdf",
            "summary.csv",
            "costs.csv",
            "claims.json",
            *_PAGES,
            *_CAPTIONS,
            _EVENTS,
        ],
    ),
)


class Origin(NamedTuple):
    """The rule that makes a file, and the files that it reads."""

    rule: str
    inputs: list[str]


class Study(NamedTuple):
    """A study's folder, where each of its files comes from, and its results by key."""

    folder: Path
    origins: dict[str, Origin]
    numbers: dict[str, dict[str, Any]]


def explain(what: str, results: Path) -> str:
    r"""The chain of something in a study, as indented text.

    Args:
        what: a result (`mlp-numpy.test-accuracy`, or `\result{…}` around it), a table or figure by its name or label,
            or a file, named from the study's folder or as a path.
        results: the study's folder.

    Raises:
        InputError: nothing of the study is called so; near names are listed.
    """
    study = read_study(results)
    name = re.sub(r"^\\result\{(.*)\}$", r"\1", what)
    lines: list[str] = []
    reached: dict[str, None] = {}
    if name in study.numbers:
        number = study.numbers[name]
        mean = f", the mean over {len(number['runs'])} runs" if "runs" in number else ""
        lines.append(textwrap.fill(f"{name} = {plain(number['text'])}{mean}", 110, subsequent_indent="  "))
        file, inputs = "numbers.tex", number["files"]
        if name.startswith("figures."):
            file = f"figures/{name.removeprefix('figures.')}.pdf"
            inputs = study.numbers[f"sources.{name.removeprefix('figures.')}"]["files"]
    else:
        file = file_named(name, study)
        inputs = study.numbers.get(f"sources.{_short_name(file)}", {}).get("files") or study.origins[file].inputs
    origin = Origin(study.origins[file].rule, inputs)
    lines += _chain([file], study.origins | {file: origin}, reached)
    return "\n".join([*lines, "", *_footer(reached, study)])


def read_study(results: Path) -> Study:
    """Where each file of a study comes from, by its plan, whether it has been made or not."""
    numbers = results / "numbers.json"
    return Study(results, origins(results / "plan"), read_json(numbers) if numbers.is_file() else {})


def origins(plan_folder: Path) -> dict[str, Origin]:
    """The origin of each file that the rules make, by its name from the study's folder."""
    wildcards = _wildcards(plan_folder / "stages")
    found = {}
    for rule in RULES:
        for pattern in rule.outputs:
            for bound in _combinations(pattern, {}, wildcards):
                inputs = [
                    pattern.format(**bound, **free)
                    for pattern in rule.inputs
                    for free in _combinations(pattern, bound, wildcards)
                ]
                found[pattern.format(**bound)] = Origin(rule.name, inputs)
    return found


def _wildcards(stages: Path) -> Wildcards:
    names = ("tables", "shifts", "flips", "events", "figures")
    settings = {name: read_json(stages / f"{name}.json")["settings"] for name in names}
    variants, searches = settings["tables"]["variants"], settings["tables"]["searches"]
    drawing = [name for name, entry in searches.items() if "trials" not in entry]
    return [
        [{"variant": v["name"], "seed": str(seed)} for v in variants for seed in v["seeds"]],
        [{"variant": v["name"], "search_of_variant": v["search"]} for v in variants if v["search"]],
        [{"shifted": v["name"], "seed": str(seed)} for v in settings["shifts"]["variants"] for seed in v["seeds"]],
        [{"flipped": v["name"], "seed": str(seed)} for v in settings["flips"]["variants"] for seed in v["seeds"]],
        [{"logged": v["name"], "its_seed": str(seed)} for v in settings["events"]["variants"] for seed in v["seeds"]],
        [{"search": name} for name in searches],
        [{"search": name, "trial": trial} for name, entry in searches.items() for trial in entry.get("trials", ())],
        [{"drawing_search": name} for name in drawing],
        [{"search": name, "trials_of_search": f"search/{name}/trials.json"} for name in drawing],
        [{"table_of_searches": "search.csv"}] if searches else [],
        [{"figure": name} for name in figures.names(settings["figures"])],
        [{"page": name} for name in pages.TABLES if name != "search" or searches],
    ]


def _combinations(pattern: str, bound: dict[str, str], wildcards: Wildcards) -> list[dict[str, str]]:
    """The values of a pattern's wildcards that agree with those already bound, without these."""
    wanted = [name for name in re.findall(r"\{(\w+)\}", pattern) if name not in bound]
    if not wanted:
        return [{}]
    found = {
        tuple(combination[name] for name in wanted): None
        for domain in wildcards
        for combination in domain
        if combination.keys() >= set(wanted) and all(bound.get(k, v) == v for k, v in combination.items())
    }
    return [dict(zip(wanted, values, strict=True)) for values in found]


def file_named(name: str, study: Study) -> str:
    """The file that a name means."""
    path = Path(name)
    inside = path.resolve().is_relative_to(study.folder.resolve())
    relative = path.resolve().relative_to(study.folder.resolve()).as_posix() if inside else name
    short = re.sub(r"^(tab|fig):", "", name)
    for candidate in (name, relative, f"tables/{short}.tex", f"figures/{short}.pdf"):
        if candidate in study.origins:
            return candidate
    known = [*study.numbers, *study.origins, *map(_short_name, study.origins)]
    near = difflib.get_close_matches(name, dict.fromkeys(known), n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "numbers.json has the results, plan/ what files there are"
    raise InputError(f"{name}: expected a result, table, figure or file of {study.folder}, found none such; {hint}")


def _short_name(file: str) -> str:
    """`comparison` of figures/comparison.pdf, `tables/summary` of tables/summary.tex."""
    return re.sub(r"^figures/|\.(tex|pdf|svg)$", "", file)


def _chain(files: Iterable[str], made: dict[str, Origin], reached: dict[str, None], indent: str = "") -> list[str]:
    """Lines that say which rule made these files, and below each line what it was made from.

    `reached` collects the files on the way; a rule that has been followed already is not followed again.
    """
    by_rule: dict[str, list[str]] = {}
    for file in files:
        by_rule.setdefault(made[file].rule if file in made else "", []).append(file)
    lines = []
    for rule, members in by_rule.items():
        again = any(made[file].rule == rule for file in reached if file in made)
        reached |= dict.fromkeys(members)
        ending = f"  <- {rule}" + (", as above" if again else "") if rule else ""
        lines.append(f"{indent}{shortened(members)}{ending}")
        if rule and not again:
            inputs = dict.fromkeys(file for member in members for file in made[member].inputs)
            lines += _chain(inputs, made, reached, indent + "  ")
    return lines


# --- what a chain ends in ---------------------------------------------------------------------------------------------


def _footer(reached: Iterable[str], study: Study) -> list[str]:
    """The runs that a chain has reached, their settings, code and commits, and the data."""
    folders = dict.fromkeys(
        found[0] for file in reached if (found := re.match(r"(runs|search)/[^/]+/[^/]+(?=/)", file))
    )
    records = {folder: _record(study, folder) for folder in folders}
    plans = {folder: read_json(study.folder / plan_of(folder)) for folder in folders}
    siblings = Counter(folder.rpartition("/")[0] for folder in folders)
    alone = [folder for folder in folders if folder.startswith("runs/") or siblings[folder.rpartition("/")[0]] == 1]
    searches = dict.fromkeys(folder.split("/")[1] for folder in folders if folder not in alone)

    lines = ["Runs"] if folders else []
    lines += [f"  {folder}  {_fate(records[folder], plans[folder], study)}" for folder in alone]
    for search in searches:
        trials = [record for folder, record in records.items() if folder.startswith(f"search/{search}/")]
        counts = Counter(record["status"] if record else "not trained yet" for record in trials)
        lines.append(f"  search/{search}/*  {len(trials)} trials: {', '.join(f'{n} {s}' for s, n in counts.items())}")

    lines += ["Settings that differ from their defaults"] if folders else []
    for path, folder in {plan_of(folder): folder for folder in alone}.items():
        lines += _wrapped(f"{path}: {_listed(run_settings(plans[folder], study).canonical())}")
    for search in searches:
        path = f"plan/select/{search}.json"
        grid = read_json(study.folder / path)["settings"]["grid"]
        lines += _wrapped(f"{path}: all of {'; '.join(f'{name} {values}' for name, values in grid.items())}")

    code: dict[str, dict[str, None]] = {}
    for folder, document in plans.items():
        code.setdefault(document["code"], {})[folder.split("/")[1]] = None
    lines += ["Code, as the SHA-256 of its syntax trees"] if code else []
    for digest, names in code.items():
        lines += _wrapped(f"{digest}: {', '.join(names)}")

    commits = Counter(_commit(record["commit"]) for record in records.values() if record)
    lines += ["Commits"] if commits else []
    lines += [f"  {commit}: {count} run{'s' if count > 1 else ''}" for commit, count in commits.items()]

    data = study.folder / "dataset" / "dataset.json"
    if data.is_file() and (folders or any(file.startswith("dataset/") for file in reached)):
        description = read_json(data)
        lines.append(
            f"Data: {description['name']}, read from the source {description['source']}; SHA-256 of its arrays"
        )
        lines += [f"  {digest}  {name}" for name, digest in description["sha256"].items()]
    return [*lines, "Configuration after all overlays: plan/config.yaml"]


def plan_of(folder: str) -> str:
    kind, name, *_ = folder.split("/")
    return f"plan/{name}.json" if kind == "runs" else f"plan/{folder}.json"


def _record(study: Study, folder: str) -> dict[str, Any] | None:
    path = study.folder / folder / "run.json"
    return read_json(path) if path.is_file() else None


def run_settings(document: dict[str, Any], study: Study) -> Settings:
    """The settings of a plan file, with those that its search has selected."""
    path = study.folder / "search" / str(document.get("search")) / "selected.yaml"
    selected = yaml.safe_load(path.read_text())["settings"] if path.is_file() else {}
    return plan.settings_of(document, selected)


def _fate(record: dict[str, Any] | None, document: dict[str, Any], study: Study) -> str:
    """Status and identity of a run, and whether the identity is that of the plan's settings and code on this data."""
    if record is None:
        return "not trained yet"
    data = read_json(study.folder / "dataset" / "dataset.json")["sha256"]
    used = {name: data[name] for name in record["data"]["digests"]}
    expected = run_identity(run_settings(document, study), record["seed"], used, document["code"])
    verdict = "as the plan and the data say" if expected == record["identity"] else "NOT of this plan and data"
    return f"{record['status']}, identity {record['identity'][:12]}, {verdict}"


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _commit(commit: dict[str, Any]) -> str:
    if commit["hash"] is None:
        return "outside a git checkout"
    date = datetime.fromtimestamp(commit["time"], UTC).date()
    return f"{commit['hash']} of {date}{', with changes that were not committed' if commit['dirty'] else ''}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ")
