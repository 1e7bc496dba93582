"""The typed view of a validated configuration: a study, its data, its variants and its searches."""

import difflib
import hashlib
import itertools
import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import yaml

from cifar_report.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides what a run computes, besides its seed and its data.

    The fields without a default must be given. A default is neutral, the feature switched off, and may never change:
    a run's identity hashes only the settings that differ from it, so that a new option leaves old runs valid.
    """

    kind: str  # numpy-mlp, torch-mlp or torch-vgg
    optimiser: str  # sgd, adam or adamw
    learning_rate: float  # of a schedule, the highest
    steps: int
    batch_size: int
    preprocessing: str  # mean-image: pixels 0 to 255 minus the mean image; standardise: per channel
    evaluate_every: int  # steps
    evaluation_images: int  # size of the fixed subset of each split that the curve is evaluated on
    threads: int
    train_on: str = "train"  # or train+validation
    hidden: tuple[int, ...] = ()  # units of each hidden layer of an MLP
    slope: float = 0.0  # of the leaky ReLU for negative inputs
    initial_std: float | None = None  # W ~ N(0, std²), b = 0; None: PyTorch's default
    batch_norm: str = "none"  # autograd, manual or torch
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"  # cosine or one-cycle
    warmup: float = 0.0  # share of the steps that a one-cycle schedule rises for
    label_smoothing: float = 0.0
    dropout: float = 0.0
    flip: bool = False  # mirror each training image with probability 1/2
    shift: int = 0  # move each training image by up to so many pixels
    average_decay: float = 0.0  # exponential moving average of the weights; 0: none
    precision: str = "float32"  # float64, tf32 or bf16
    deterministic: bool = False  # deterministic algorithms on a GPU, at their cost

    def canonical(self) -> dict[str, Any]:
        """The settings that differ from their neutral default, JSON types only: what an identity is made from."""
        return {name: value for name, value in self.full().items() if getattr(self, name) != NEUTRAL.get(name, MISSING)}

    def full(self) -> dict[str, Any]:
        """All settings, JSON types only."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> "Settings":
        """From a mapping with exactly the fields' names. Numbers are coerced, so that 1 and 1.0 are one setting."""
        return cls(**{name: _COERCE.get(TYPES[name], _unchanged)(value) for name, value in mapping.items()})


def _unchanged(value: Any) -> Any:
    return value


TYPES = get_type_hints(Settings)
SETTINGS = tuple(f.name for f in fields(Settings))
NEUTRAL = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
_COERCE = {float: float, tuple[int, ...]: tuple}


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

    def resolved(self, selected: dict[str, Any] | None = None) -> Settings:
        """The full settings; `selected` are those that the search chose."""
        return Settings.from_mapping(self.settings | (selected or {}))


@dataclass(frozen=True, kw_only=True)
class Search:
    """A full grid over some settings of a variant, judged on the validation split."""

    name: str
    like: str
    seed: int
    grid: dict[str, list[Any]]
    base: dict[str, Any]

    def trials(self) -> dict[str, Settings]:
        """Each trial's settings by the first 16 hexadecimal digits of their SHA-256."""
        trials = {}
        for values in itertools.product(*self.grid.values()):
            settings = Settings.from_mapping(self.base | dict(zip(self.grid, values, strict=True)))
            trials[digest(settings.canonical())[:16]] = settings
        return trials


@dataclass(frozen=True, kw_only=True)
class Study:
    """A validated configuration."""

    name: str
    dataset_name: str
    dataset: dict[str, Any]
    validation_images: int
    report: dict[str, Any]
    shifts: dict[str, Any]  # variants whose accuracy under shifts is measured, and on how many images
    catalogue: tuple[str, ...]  # names of all variants, whether the study runs them or not
    variants: dict[str, Variant]  # those of `run`, in its order
    searches: dict[str, Search]  # those that a variant of `run` needs


def digest(document: Any) -> str:
    """SHA-256 of a JSON document, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load(config: dict[str, Any], schema: Path) -> Study:
    """Validates a merged configuration and resolves it.

    Args:
        config: the parsed YAML after all overlays.
        schema: the JSON schema, as YAML.

    Raises:
        InputError: a key or value is wrong; the message names it, what was expected and what was found.
    """
    document = yaml.safe_load(schema.read_text())
    validate(config, document, "config")
    settings = document["properties"]["defaults"]["properties"]
    for name, search in config.get("search", {}).items():
        for axis in search["grid"]:
            for value in axis["values"]:
                validate(value, settings[axis["setting"]], f"config: search.{name}.grid.{axis['setting']}")
    dataset = _one_of(config["datasets"], config["dataset"], "dataset", "datasets")
    variants = {name: _variant(config, name) for name in config["run"]}
    for name in config["shifts"]["variants"]:
        _one_of(config["variants"], name, "shifts.variants", "variants")
    searches = {v.search: _search(config, v.search) for v in variants.values() if v.search}
    return Study(
        name=config["study"],
        dataset_name=config["dataset"],
        dataset=dataset,
        validation_images=config["validation_images"],
        report=config["report"],
        shifts=config["shifts"],
        catalogue=tuple(config["variants"]),
        variants=variants,
        searches=searches,
    )


def validate(document: Any, schema: dict[str, Any], what: str) -> None:
    """Raises InputError with the key, the value and what the schema expects, for the most telling violation."""
    validator = jsonschema.Draft202012Validator(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is None:
        return
    where = ".".join(map(str, error.absolute_path))
    message = error.message
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))[0]
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}"
        message = f"unknown key '{unknown}' = {error.instance[unknown]!r}; {hint}"
    elif error.validator == "pattern":
        message = f"{error.instance!r} is not allowed: {error.schema.get('description', error.message)}"
    raise InputError(": ".join(filter(None, (what, where, message))))


def _one_of(catalogue: dict[str, Any], name: str, key: str, where: str) -> Any:
    if name not in catalogue:
        near = difflib.get_close_matches(name, catalogue, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(catalogue))}"
        raise InputError(f"config: {key}: '{name}' is not among the {where}; {hint}")
    return catalogue[name]


def _merged(config: dict[str, Any], name: str, key: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A variant's entry on top of the one that it is `like`, on top of the study's defaults."""
    if name in seen:
        raise InputError(f"config: variants.{seen[0]}.like: goes round in a circle: {' -> '.join((*seen, name))}")
    entry = dict(_one_of(config["variants"], name, key, "variants"))
    like = entry.pop("like", None)
    if like is None:
        return config.get("defaults", {}) | entry
    inherited = _merged(config, like, f"variants.{name}.like", (*seen, name))
    not_inherited = ("label", "original_test_accuracy", "seeds", "search")
    return {k: v for k, v in inherited.items() if k not in not_inherited} | entry


def _variant(config: dict[str, Any], name: str) -> Variant:
    entry = _merged(config, name, "run")
    settings = {k: v for k, v in entry.items() if k in SETTINGS}
    searched = _search(config, entry["search"]).grid if "search" in entry else {}
    if both := sorted(set(searched) & set(config["variants"][name])):
        raise InputError(
            f"config: variants.{name}.{both[0]}: is set here and also chosen by the search '{entry['search']}'"
        )
    settings = {k: v for k, v in settings.items() if k not in searched}
    _check(settings, set(searched), f"variants.{name}")
    return Variant(
        name=name,
        label=entry.get("label", name),
        seeds=tuple(entry.get("seeds", config["seeds"])),
        settings=settings,
        search=entry.get("search"),
        original_test_accuracy=entry.get("original_test_accuracy"),
    )


def _search(config: dict[str, Any], name: str) -> Search:
    entry = _one_of(config.get("search", {}), name, "search", "searches")
    merged = _merged(config, entry["like"], f"search.{name}.like")
    base = {k: v for k, v in merged.items() if k in SETTINGS} | {"train_on": "train"}
    grid = {axis["setting"]: axis["values"] for axis in entry["grid"]}
    search = Search(name=name, like=entry["like"], seed=entry["seed"], grid=grid, base=base)
    _check(base, set(grid), f"search.{name}")
    for settings in search.trials().values():
        _check(asdict(settings), set(), f"search.{name}")
    if config["validation_images"] == 0:
        raise InputError(f"config: validation_images: 0, but the search '{name}' needs a validation split to judge by")
    return search


def _check(settings: dict[str, Any], chosen_elsewhere: set[str], where: str) -> None:
    """What the schema cannot say of one entry alone: what is missing, and what does not go together."""
    if missing := sorted(set(SETTINGS) - set(NEUTRAL) - set(settings) - chosen_elsewhere):
        raise InputError(f"config: {where}: the setting '{missing[0]}' is missing; give it here or under 'defaults'")
    kind = settings.get("kind")
    refused = {
        "numpy-mlp": ("batch_norm", "dropout", "average_decay", "label_smoothing", "deterministic"),
        "torch-mlp": (),
        "torch-vgg": ("hidden", "slope"),
    }
    for name in refused.get(kind, ()):
        value = settings.get(name, NEUTRAL[name])
        if (tuple(value) if name == "hidden" else value) != NEUTRAL[name]:
            raise InputError(f"config: {where}.{name}: {value!r}, but a {kind} has no such setting; take it out")
    if kind == "numpy-mlp" and settings.get("optimiser", "sgd") != "sgd":
        raise InputError(f"config: {where}.optimiser: '{settings['optimiser']}', but a numpy-mlp is trained by sgd")
    if kind == "numpy-mlp" and settings.get("precision", "float32") not in ("float32", "float64"):
        raise InputError(f"config: {where}.precision: '{settings['precision']}', but NumPy has float32 and float64")
    if kind == "torch-vgg" and settings.get("batch_norm", "none") not in ("none", "torch"):
        raise InputError(f"config: {where}.batch_norm: '{settings['batch_norm']}', but a torch-vgg takes none or torch")
    if settings.get("nesterov") and not settings.get("momentum"):
        raise InputError(f"config: {where}.nesterov: true, but momentum is 0; Nesterov's step needs momentum")
