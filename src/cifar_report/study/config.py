"""A study, its data, variants and searches, from a configuration that was checked as a whole."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cifar_report.base.errors import InputError
from cifar_report.base.files import load_yaml, read_yaml
from cifar_report.base.validation import check_plain, checked, did_you_mean
from cifar_report.data.archives import located
from cifar_report.study.document import Practical, StudyDocument, schema
from cifar_report.study.kinds import KINDS
from cifar_report.study.search import Halving, Search, listed, trial_name
from cifar_report.study.settings import NEUTRAL, SETTINGS, TYPES, Settings, coerced, digest

__all__ = [
    "NEUTRAL",
    "SETTINGS",
    "TRAINING_IMAGES",
    "TYPES",
    "Halving",
    "Search",
    "Settings",
    "Study",
    "Variant",
    "check_data",
    "check_files",
    "coerced",
    "digest",
    "from_command_line",
    "load",
    "trial_name",
]
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_437}  # of the sources whose size is known beforehand
# The settings in which two implementations of one network may differ, where their agreement is measured.
IMPLEMENTATION = ("kind", "batch_norm", "evaluate_every", "evaluation_images", "threads", "precision")
NOT_INHERITED = ("label", "seeds", "search", "like")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of the study: settings trained with several seeds.

    With `search`, the settings that the search varies are missing here and come from its selection.
    """

    name: str
    label: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    search: str | None = None
    original_test_accuracy: float | None = None
    original_figure: int | None = None  # of the practical, that it draws anew
    like: str | None = None  # the nearest variant of the study that it takes settings over from

    def resolved(self, selected: dict[str, Any] | None = None) -> Settings:
        """The full settings; `selected` are those that the search chose."""
        return Settings.from_mapping(self.settings | (selected or {}))


@dataclass(frozen=True, kw_only=True)
class Study:
    """A validated configuration."""

    name: str
    dataset_name: str
    dataset: dict[str, Any]
    validation_images: int
    report: dict[str, Any]  # as configured, with title and author ("" for none)
    reproduces: bool  # whether it is of the data of the practical, whose accuracies, claims and errors are then told
    claims: str  # the file of the claims, "" for none
    shifts: dict[str, Any]  # variants whose accuracy under shifts is measured, and on how many images
    flipped: tuple[str, ...]  # variants whose accuracy with test-time flips is measured
    by_batch_statistics: tuple[str, ...]  # variants whose accuracy by the statistics of test batches is measured
    agreement: tuple[tuple[str, str], ...]  # pairs of variants of `run` whose implementations are compared
    tensorboard: bool  # whether event files are written
    best: dict[str, list[str]]  # variants that go beyond another, by its name
    catalogue: tuple[str, ...]  # names of all variants, whether the study runs them or not
    variants: dict[str, Variant]  # those of `run`, in its order
    searches: dict[str, Search]  # those that a variant of `run` needs, and the next two
    ablations: tuple[str, ...]  # searches that tell what each ingredient of a variant is worth
    recipes: tuple[str, ...]  # searches that are a log of what was tried

    def needs(self) -> dict[str, dict[str, Any]]:
        """What each variant and search asks of the data, as `check_data` takes it, by its key in the configuration."""
        asked = {f"variants.{v.name}": (v.settings, v.search) for v in self.variants.values()}
        asked |= {f"search.{name}": (search.base, name) for name, search in self.searches.items()}
        needs = {}
        for where, (settings, name) in asked.items():
            values = self.searches[name].grid.get("batch_size") if name else None
            largest = max(values.values() if isinstance(values, dict) else values) if values else settings["batch_size"]
            needs[where] = {"train_on": NEUTRAL["train_on"]} | settings | {"batch_size": largest}
        return {where: {key: each[key] for key in ("kind", "batch_size", "train_on")} for where, each in needs.items()}


def check_files(paths: Iterable[Path]) -> None:
    """Refuses configuration files in which a key stands twice, and templates.

    A template was run by Snakemake before anything of this study could look at it: all that is left is to say so.

    Raises:
        InputError: the message names the file, and the lines.
    """
    for path in paths:
        document = read_yaml(path)
        if isinstance(document, Mapping) and document.get("__use_yte__"):
            raise InputError(
                f"{path}: __use_yte__: is a template, which is a program, and Snakemake has run it already; write the "
                "configuration out, and see what the file did if it is not yours"
            )


def from_command_line(entry: str) -> dict[str, Any]:
    """An entry KEY=VALUE of `--config` as YAML reads it, and text where a study has text there.

    Snakemake has made other values of it: it tries Python's numbers first, and leaves what stands in lists and mappings
    text.

    Raises:
        InputError: a key stands twice in a mapping, or a value does not fit its tag.
    """
    key, _, value = entry.partition("=")
    known = schema()["properties"].get(key, {})
    try:
        written = load_yaml(value, f"--config {key}", lambda root: _as_text(root, known))
    except (yaml.YAMLError, ValueError, RecursionError):
        written = value
    return {key: written}


def _as_text(node: yaml.Node, *schemas: dict[str, Any]) -> None:
    """Has keys, and what a study has as text, read as text where no quotes say so; `schemas`: of a study, there."""
    places = [place for each in schemas for place in each.get("oneOf", (each,))]
    if isinstance(node, yaml.MappingNode):
        rest = [(place.get("properties", {}), place.get("additionalProperties") or {}) for place in places]
        for key, value in node.value:
            _as_text(key, {"type": "string"})
            _as_text(value, *(known.get(key.value, other) for known, other in rest))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _as_text(item, *(place.get("items", {}) for place in places))
    elif any("string" in place.get("type", ()) for place in places):
        node.tag = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG


def load(config: dict[str, Any]) -> Study:
    """Checks a merged configuration and resolves it.

    Args:
        config: the parsed YAML after all overlays.

    Raises:
        InputError: a key or value is wrong; the message names it, what was expected and what was found.
    """
    check_plain(config, "config")
    document = checked(StudyDocument.model_validate, config, "config")
    for name, entry in document.search.items():
        entry.check(f"search.{name}")
    _one_of(document.datasets, document.dataset, "dataset", "datasets")
    practical = document.practical if document.dataset in document.practical.datasets else Practical()
    report = document.report.given()
    report |= {key: report.get(key) or getattr(practical, key) for key in ("title", "author")}
    report["copy"] = practical.copies.get(document.dataset, "")
    if not report["title"]:
        raise InputError(
            f"config: report.title: is missing, and a report on '{document.dataset}' needs one of its own; write for "
            "instance report: {title: Networks that tell flowers apart}"
        )
    dataset = document.datasets[document.dataset]
    held_out, known = document.validation_images, TRAINING_IMAGES.get(dataset.source, math.inf)
    if held_out >= known:
        raise InputError(f"config: validation_images: {held_out}, but '{document.dataset}' has {known} training images")
    for name, written in document.variants.items():  # those that do not run too: they may soon
        _merged(document, name, "variants")
        if written.search:
            _one_of(document.search, written.search, f"variants.{name}.search", "searches")
    for name, entry in document.search.items():
        _one_of(document.variants, entry.like, f"search.{name}.like", "variants")
    variants = {name: _variant(document, name, practical) for name in document.run}
    labels = {variant.label: name for name, variant in variants.items()}
    for name, variant in variants.items():
        if labels[variant.label] != name:
            raise InputError(
                f"config: variants.{name}.label: '{variant.label}' is that of '{labels[variant.label]}' too; give each "
                "a label of its own"
            )
    needed = [variant.search for variant in variants.values() if variant.search]
    told: dict[str, tuple[str, ...]] = {}
    for key in ("ablations", "recipes"):
        for name in getattr(document, key):
            _one_of(document.search, name, key, "searches")
            if document.search[name].method != "list":
                raise InputError(f"config: {key}: '{name}' is no list of configurations; set method: list there")
        told[key] = tuple(name for name in getattr(document, key) if document.search[name].like in document.run)
    best = document.report.best
    for key, names in (
        ("shifts.variants", document.shifts.variants),
        ("test_time_flips.variants", document.test_time_flips.variants),
        ("practical.accuracies", document.practical.accuracies),
        ("batch_statistics.variants", document.batch_statistics.variants),
        ("agreement.pairs", [name for pair in document.agreement.pairs for name in pair]),
        ("report.best", [name for entry in best.items() for name in (entry[0], *entry[1])]),
    ):
        for name in names:
            _one_of(document.variants, name, key, "variants")
    pairs = tuple((a, b) for a, b in document.agreement.pairs if a in variants and b in variants)
    for pair in pairs:
        _check_pair(*(variants[name] for name in pair))
    return Study(
        name=document.study,
        dataset_name=document.dataset,
        dataset=dataset.given(),
        validation_images=held_out,
        report=report,
        reproduces=practical.datasets != [],
        claims=str(located(claims)) if (claims := document.claims or practical.claims) else "",
        shifts=document.shifts.given(),
        flipped=tuple(document.test_time_flips.variants),
        by_batch_statistics=tuple(document.batch_statistics.variants),
        agreement=pairs,
        tensorboard=document.tensorboard,
        best=best,
        catalogue=tuple(document.variants),
        variants=variants,
        searches={name: _search(document, name) for name in (*needed, *told["ablations"], *told["recipes"])},
        **told,
    )


def _one_of(catalogue: Iterable[str], name: str, key: str, where: str) -> None:
    if name not in catalogue:
        hint = did_you_mean(name, sorted(catalogue), "there are")
        raise InputError(f"config: {key}: '{name}' is not among the {where}; {hint}")


def _merged(document: StudyDocument, name: str, key: str) -> dict[str, Any]:
    """A variant's entry on top of the one that it is `like`, on top of the study's defaults."""
    _one_of(document.variants, name, key, "variants")
    merged = document.variants[name].given()
    seen = [name]
    while (like := merged.pop("like", None)) is not None:
        if like in seen:
            raise InputError(f"config: variants.{name}.like: goes round in a circle: {' -> '.join((*seen, like))}")
        _one_of(document.variants, like, f"variants.{seen[-1]}.like", "variants")
        entry = document.variants[like].given()
        merged = {k: v for k, v in entry.items() if k not in NOT_INHERITED} | merged
        if "like" in entry:
            merged["like"] = entry["like"]
        seen.append(like)
    return document.defaults.given() | merged


def _variant(document: StudyDocument, name: str, practical: Practical) -> Variant:
    entry = _merged(document, name, "run")
    settings = {k: v for k, v in entry.items() if k in SETTINGS}
    search = _search(document, entry["search"]) if "search" in entry else None
    searched = search.grid if search else {}
    if both := sorted(set(searched) & document.variants[name].model_fields_set):
        raise InputError(
            f"config: variants.{name}.{both[0]}: is set here and also chosen by the search '{entry['search']}'"
        )
    settings = {k: v for k, v in settings.items() if k not in searched}
    for values in ({}, *(search.combinations() if search else ())):
        _check(settings | values, set(searched), f"variants.{name}")
    return Variant(
        name=name,
        label=entry.get("label", name),
        seeds=tuple(entry.get("seeds") or document.seeds),
        settings=settings,
        search=entry.get("search"),
        original_test_accuracy=practical.accuracies.get(name),
        original_figure=list(practical.accuracies).index(name) + 1 if name in practical.accuracies else None,
        like=_ancestor(document, name),
    )


def _ancestor(document: StudyDocument, name: str) -> str | None:
    """The first variant of `run` on the chain of `like` that begins at a variant."""
    like = document.variants[name].given().get("like")
    while like is not None and like not in document.run:
        like = document.variants[like].given().get("like")
    return like


def _search(document: StudyDocument, name: str) -> Search:
    entry = document.search[name]
    merged = _merged(document, entry.like, f"search.{name}.like")
    base = {k: v for k, v in merged.items() if k in SETTINGS} | entry.settings.given() | {"train_on": "train"}
    configurations = listed(entry, base, f"search.{name}")
    grid: dict[str, Any] = {axis.setting: axis.space() for axis in entry.grid}
    for values in configurations.values():
        for setting, value in values.items():
            grid.setdefault(setting, [])
            grid[setting] += [value] * (value not in grid[setting])
    search = Search(
        name=name,
        like=entry.like,
        seeds=tuple(entry.seeds or [entry.seed]),
        grid=grid,
        base=base,
        halving=entry.halving(),
        listed=configurations,
    )
    for values in ({}, *search.combinations()):
        _check(base | values, set(grid), f"search.{name}")
    if search.halving and "steps" in base and search.rung_steps()[0] < 1:
        raise InputError(
            f"config: search.{name}.rungs: {search.halving.rungs}, but {base['steps']} steps cannot be reduced so "
            f"often by {search.halving.reduction}; take fewer rungs"
        )
    if document.validation_images == 0:
        raise InputError(f"config: validation_images: 0, but the search '{name}' needs a validation split to judge by")
    return search


def _check_pair(first: Variant, second: Variant) -> None:
    """Refuses a pair that is not one network twice."""
    where = f"config: agreement.pairs: '{first.name}' and '{second.name}'"
    for variant in (first, second):
        if variant.search:
            raise InputError(f"{where}: a search chooses settings of '{variant.name}'; name variants without a search")
    ours, theirs = first.resolved().full(), second.resolved().full()
    if differ := [name for name in SETTINGS if ours[name] != theirs[name] and name not in IMPLEMENTATION]:
        raise InputError(
            f"{where} differ in {differ[0]} ({ours[differ[0]]} and {theirs[differ[0]]}); expected two that differ in "
            "kind or batch_norm alone"
        )


def _check(settings: dict[str, Any], searched: set[str], where: str) -> None:
    """What no entry shows alone: what is missing, what does not go together, and what would have no effect."""
    if missing := sorted(set(SETTINGS) - set(NEUTRAL) - set(settings) - searched):
        raise InputError(f"config: {where}: the setting '{missing[0]}' is missing; give it here or under 'defaults'")
    every = NEUTRAL | settings
    if "kind" in settings:
        kind = settings["kind"]
        for name in KINDS[kind].refuses:
            if (tuple(every[name]) if name == "hidden" else every[name]) != NEUTRAL[name]:
                raise InputError(
                    f"config: {where}.{name}: {every[name]!r}, but a {kind} has no such setting; take it out"
                )
        for name, taken in KINDS[kind].takes.items():
            if name in every and every[name] not in taken:
                raise InputError(f"config: {where}.{name}: {every[name]!r}, but a {kind} takes {' or '.join(taken)}")
    if every["alternate_flips"] and not every["flip"]:
        raise InputError(f"config: {where}.alternate_flips: true, but flip is false; set flip: true")
    if every["bias_rate"] != 1 and every["batch_norm"] == "none":
        raise InputError(f"config: {where}.bias_rate: {every['bias_rate']}, but there is no batch norm; take it out")
    for name, chooser, needed in (("momentum", "optimiser", "sgd"), ("warmup", "schedule", "one-cycle")):
        # A search among optimisers may try one that has no momentum.
        if every[name] and every.get(chooser, needed) != needed and chooser not in searched:
            raise InputError(
                f"config: {where}.{name}: {every[name]}, but the {chooser} is {every[chooser]}, and {name} is of "
                f"{needed} alone; take it out"
            )
    if every["nesterov"] and not every["momentum"]:
        raise InputError(f"config: {where}.nesterov: true, but momentum is 0; Nesterov's step needs momentum")


def check_data(needs: dict[str, Any], counts: dict[str, int], shape: Sequence[int], where: str) -> None:
    """Refuses settings that do not fit the data.

    Args:
        needs: the settings kind, batch_size and train_on; counts: images of each split; shape: channels, height and
            width of an image.

    Raises:
        InputError: the batch is larger than the training split, or the images are too small for this kind of model.
    """
    kind, batch_size = needs["kind"], needs["batch_size"]
    images = counts["train"] + (counts["validation"] if needs["train_on"] == "train+validation" else 0)
    if batch_size > images:
        raise InputError(
            f"{where}: batch_size: {batch_size}, but the training split has {images} images; choose a smaller batch"
        )
    smallest = KINDS[kind].smallest_image
    if min(shape[1:]) < smallest:
        raise InputError(
            f"{where}: kind: a {kind} takes images of {smallest} pixels a side or more, found {shape[1]}×{shape[2]}; "
            "leave it out of 'run'"
        )
