"""The typed view of a validated configuration: a study, its data, its variants and its searches."""

import difflib
import hashlib
import itertools
import json
import math
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import yaml

from cifar_report.base.errors import InputError
from cifar_report.study.kinds import KINDS


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
    dirac: bool = False  # the first channels of each convolution begin as the identity
    batch_norm: str = "none"  # autograd, manual or torch
    bias_rate: float = 1.0  # learning rate of batch norm's biases, in that of all else
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"  # cosine or one-cycle
    warmup: float = 0.0  # share of the steps that a one-cycle schedule rises for
    label_smoothing: float = 0.0
    dropout: float = 0.0
    flip: bool = False  # mirror each training image with probability 1/2
    alternate_flips: bool = False  # mirror by a draw an image, and the other way in every second epoch
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
        return cls(**coerced(mapping))


def coerced(mapping: dict[str, Any]) -> dict[str, Any]:
    """Some settings, each of its field's type."""
    return {name: _COERCE.get(TYPES[name], _unchanged)(value) for name, value in mapping.items()}


def _unchanged(value: Any) -> Any:
    return value


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


TYPES = get_type_hints(Settings)
SETTINGS = tuple(f.name for f in fields(Settings))
NEUTRAL = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
_COERCE: dict[Any, Callable[[Any], Any]] = {float: float, float | None: _float_or_none, tuple[int, ...]: tuple}
LARGEST_NUMBER = 2**53  # beyond it, floats skip integers
MOST_VALUES, DEEPEST = 100_000, 20  # of a configuration
MOST_TRIALS = 10_000  # of a search
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_437}  # of the sources whose size is known beforehand


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
    like: str | None = None  # the nearest variant of the study that it takes settings over from

    def resolved(self, selected: dict[str, Any] | None = None) -> Settings:
        """The full settings; `selected` are those that the search chose."""
        return Settings.from_mapping(self.settings | (selected or {}))


@dataclass(frozen=True, kw_only=True)
class Halving:
    """How a search by successive halving (Jamieson and Talwalkar 2016) spends its steps."""

    trials: int  # configurations drawn
    batch: int  # drawn at a time; the next batch knows the accuracies of those before
    reduction: int  # one in so many configurations goes on to the next rung, which trains so many times as long
    rungs: int  # the last one trains for the variant's own number of steps
    workers: int = 1  # processes that train a batch; no result depends on it


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over some settings of a variant, judged on the validation split.

    `grid` holds the values of each setting or, where `halving` draws them, a range {"low", "high", "log"}.
    """

    name: str
    like: str
    seed: int
    grid: dict[str, Any]
    base: dict[str, Any]
    halving: Halving | None = None  # None: every combination is trained

    @property
    def method(self) -> str:
        """`grid` or `successive-halving`."""
        return "successive-halving" if self.halving else "grid"

    def trials(self) -> dict[str, Settings]:
        """Each trial's settings by its name; none where they are yet to be drawn."""
        every = [] if self.halving else [Settings.from_mapping(self.base | values) for values in self.combinations()]
        return {trial_name(settings): settings for settings in every}

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All combinations of a grid. Of a space to draw from, those of each two settings, a range standing for its
        ends: enough to find two values that do not go together."""
        values = {name: [v["low"], v["high"]] if isinstance(v, dict) else v for name, v in self.grid.items()}
        varied = [tuple(values)]
        if self.halving and len(values) > 2:
            varied = list(itertools.combinations(values, 2))
        for names in varied:
            rest = {name: choices[:1] for name, choices in values.items()}
            for chosen in itertools.product(*(rest | {name: values[name] for name in names}).values()):
                yield dict(zip(values, chosen, strict=True))

    def rung_steps(self) -> list[int]:
        """The steps that each rung trains for, the shortest first."""
        steps, halving = self.base["steps"], self.halving
        return [steps // halving.reduction**k for k in reversed(range(halving.rungs))] if halving else [steps]


def trial_name(settings: Settings) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a trial's settings."""
    return digest(settings.canonical())[:16]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A validated configuration."""

    name: str
    dataset_name: str
    dataset: dict[str, Any]
    validation_images: int
    report: dict[str, Any]
    shifts: dict[str, Any]  # variants whose accuracy under shifts is measured, and on how many images
    flipped: tuple[str, ...]  # variants whose accuracy with test-time flips is measured
    tensorboard: bool  # whether event files are written
    best: dict[str, list[str]]  # variants that go beyond another, by its name
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
    _check_plain(config)
    validate(config, document, "config")
    settings = document["properties"]["defaults"]["properties"]
    for name, search in config.get("search", {}).items():
        _check_space(search, settings, f"config: search.{name}")
    dataset = _one_of(config["datasets"], config["dataset"], "dataset", "datasets")
    held_out, known = config["validation_images"], TRAINING_IMAGES.get(dataset["source"], math.inf)
    if held_out >= known:
        raise InputError(
            f"config: validation_images: {held_out}, but '{config['dataset']}' has {known} training images"
        )
    variants = {name: _variant(config, name) for name in config["run"]}
    for name in config["shifts"]["variants"]:
        _one_of(config["variants"], name, "shifts.variants", "variants")
    flipped = config.get("test_time_flips", {"variants": []})["variants"]
    for name in flipped:
        _one_of(config["variants"], name, "test_time_flips.variants", "variants")
    best = config["report"].get("best", {})
    for name in (name for entry in best.items() for name in (entry[0], *entry[1])):
        _one_of(config["variants"], name, "report.best", "variants")
    searches = {v.search: _search(config, v.search) for v in variants.values() if v.search}
    return Study(
        name=config["study"],
        dataset_name=config["dataset"],
        dataset=dataset,
        validation_images=config["validation_images"],
        report=config["report"],
        shifts=config["shifts"],
        flipped=tuple(flipped),
        tensorboard=config.get("tensorboard", False),
        best=best,
        catalogue=tuple(config["variants"]),
        variants=variants,
        searches=searches,
    )


def _check_plain(config: Any) -> None:
    """Raises InputError for what YAML can say and JSON cannot, and for what no path, file or LaTeX source can hold."""
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(config, ())]
    count = 0
    while waiting:
        value, path = waiting.pop()
        where = ": ".join(filter(None, ("config", ".".join(map(str, path)))))
        count += 1
        if count > MOST_VALUES or len(path) > DEEPEST:
            raise InputError(
                f"config: expected at most {MOST_VALUES:,} values, {DEEPEST} deep, found more; "
                "does an alias (*) stand inside its own anchor (&)?"
            )
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or not _one_line(key):
                    raise InputError(f"{where}: the key {key!r} is no text in one line; put it in quotes")
            waiting += [(item, (*path, key)) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(item, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, str):
            if not _one_line(value):
                raise InputError(f"{where}: {value!r} holds a line break or control character; write it in one line")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise InputError(f"{where}: {value}, expected a finite number")
        elif isinstance(value, int):
            if abs(value) > LARGEST_NUMBER:
                raise InputError(f"{where}: expected an integer of at most {LARGEST_NUMBER:,}, found one beyond")
        elif value is not None:
            raise InputError(f"{where}: {value!r} is a {type(value).__name__}; put it in quotes")


def _one_line(text: str) -> bool:
    """Whether it can be written as UTF-8 and holds neither line breaks nor control characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# JSON takes 1.0 for an integer; as a seed or a number of steps it would not be one.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def validate(document: Any, schema: dict[str, Any], what: str) -> None:
    """Raises InputError with the key, the value and what the schema expects, for the most telling violation."""
    validator = _Validator(schema)
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


def _merged(config: dict[str, Any], name: str, key: str) -> dict[str, Any]:
    """A variant's entry on top of the one that it is `like`, on top of the study's defaults."""
    merged = dict(_one_of(config["variants"], name, key, "variants"))
    seen = [name]
    not_inherited = ("label", "original_test_accuracy", "seeds", "search", "like")
    while (like := merged.pop("like", None)) is not None:
        if like in seen:
            raise InputError(f"config: variants.{name}.like: goes round in a circle: {' -> '.join((*seen, like))}")
        entry = _one_of(config["variants"], like, f"variants.{seen[-1]}.like", "variants")
        merged = {k: v for k, v in entry.items() if k not in not_inherited} | merged
        if "like" in entry:
            merged["like"] = entry["like"]
        seen.append(like)
    return config.get("defaults", {}) | merged


def _variant(config: dict[str, Any], name: str) -> Variant:
    entry = _merged(config, name, "run")
    settings = {k: v for k, v in entry.items() if k in SETTINGS}
    search = _search(config, entry["search"]) if "search" in entry else None
    searched = search.grid if search else {}
    if both := sorted(set(searched) & set(config["variants"][name])):
        raise InputError(
            f"config: variants.{name}.{both[0]}: is set here and also chosen by the search '{entry['search']}'"
        )
    settings = {k: v for k, v in settings.items() if k not in searched}
    _check(settings, set(searched), f"variants.{name}")
    for values in search.combinations() if search else ():
        _check(settings | values, set(), f"variants.{name}")
    return Variant(
        name=name,
        label=entry.get("label", name),
        seeds=tuple(entry.get("seeds", config["seeds"])),
        settings=settings,
        search=entry.get("search"),
        original_test_accuracy=entry.get("original_test_accuracy"),
        like=_ancestor(config, name),
    )


def _ancestor(config: dict[str, Any], name: str) -> str | None:
    """The first variant of `run` on the chain of `like` that begins at a variant."""
    like = config["variants"][name].get("like")
    while like is not None and like not in config["run"]:
        like = config["variants"][like].get("like")
    return like


def _search(config: dict[str, Any], name: str) -> Search:
    entry = _one_of(config.get("search", {}), name, "search", "searches")
    merged = _merged(config, entry["like"], f"search.{name}.like")
    base = {k: v for k, v in merged.items() if k in SETTINGS} | {"train_on": "train"}
    grid = {
        axis["setting"]: axis["values"]
        if "values" in axis
        else {"low": axis["low"], "high": axis["high"], "log": axis.get("log", False)}
        for axis in entry["grid"]
    }
    keys = [f.name for f in fields(Halving) if f.name in entry]
    halving = Halving(**{key: entry[key] for key in keys}) if _is_halving(entry) else None
    search = Search(name=name, like=entry["like"], seed=entry["seed"], grid=grid, base=base, halving=halving)
    _check(base, set(grid), f"search.{name}")
    for values in search.combinations():
        _check(base | values, set(), f"search.{name}")
    if halving and "steps" in base and search.rung_steps()[0] < 1:
        raise InputError(
            f"config: search.{name}.rungs: {halving.rungs}, but {base['steps']} steps cannot be reduced so often by "
            f"{halving.reduction}; take fewer rungs"
        )
    if config["validation_images"] == 0:
        raise InputError(f"config: validation_images: 0, but the search '{name}' needs a validation split to judge by")
    return search


def _is_halving(search: dict[str, Any]) -> bool:
    return search.get("method", "grid") == "successive-halving"


def _check_space(search: dict[str, Any], settings: dict[str, Any], where: str) -> None:
    """What the schema cannot say of a search: which keys go together, and how much its space holds.

    Args:
        settings: the schema of each setting.
    """
    halving = _is_halving(search)
    needed = [f.name for f in fields(Halving) if f.default is MISSING]
    if halving and (missing := [key for key in needed if key not in search]):
        raise InputError(f"{where}: '{missing[0]}' is missing; successive halving takes {', '.join(needed)}")
    if not halving and (useless := [f.name for f in fields(Halving) if f.name in search]):
        raise InputError(
            f"{where}.{useless[0]}: {search[useless[0]]}, but a grid trains every combination; take it out, or set "
            "method: successive-halving"
        )
    axes = [axis["setting"] for axis in search["grid"]]
    if repeated := sorted({setting for setting in axes if axes.count(setting) > 1}):
        raise InputError(f"{where}.grid: has the setting '{repeated[0]}' twice; join their values")
    sizes = [_axis_size(axis, settings[axis["setting"]], halving, f"{where}.grid") for axis in search["grid"]]
    space = math.prod(sizes)
    if (trials := search["trials"] if halving else space) > MOST_TRIALS:
        raise InputError(f"{where}.grid: {trials:,} trials, expected at most {MOST_TRIALS:,}")
    if not halving:
        return
    batch, last = search["batch"], search["reduction"] ** (search["rungs"] - 1)
    if "steps" in axes:
        raise InputError(f"{where}.grid.steps: is searched, but successive halving sets the steps itself; take it out")
    if trials > space:
        raise InputError(f"{where}.trials: {trials}, but the space holds {space} configurations; take at most so many")
    if batch > trials:
        raise InputError(f"{where}.batch: {batch}, but there are {trials} trials; take at most so many")
    if trials < last:
        raise InputError(
            f"{where}.trials: {trials}, but {search['rungs']} rungs, each for one in {search['reduction']}, need "
            f"{last} at least"
        )


def _axis_size(axis: dict[str, Any], schema: dict[str, Any], halving: bool, where: str) -> float:
    """How many values an axis of a search has."""
    setting = axis["setting"]
    at, ends = f"{where}.{setting}", ("low", "high")
    if "values" in axis:
        if both := [key for key in (*ends, "log") if key in axis]:
            raise InputError(f"{at}.{both[0]}: stands beside 'values'; give values, or low and high")
        for value in axis["values"]:
            validate(value, schema, at)
        return len(axis["values"])
    if missing := [key for key in ends if key not in axis]:
        raise InputError(f"{at}: '{missing[0]}' is missing; give values, or low and high")
    if not halving:
        raise InputError(f"{at}: is a range, but a grid has values; list them, or set method: successive-halving")
    if TYPES[setting] not in (int, float, float | None):
        raise InputError(f"{at}: is a range, but the setting is no number; list its values")
    for key in ends:
        validate(axis[key], schema, f"{at}.{key}")
    if not axis["low"] < axis["high"]:
        raise InputError(f"{at}: low {axis['low']} is not below high {axis['high']}")
    if axis.get("log") and axis["low"] <= 0:
        raise InputError(f"{at}.low: {axis['low']}, but a logarithmic range begins above 0")
    return axis["high"] - axis["low"] + 1 if TYPES[setting] is int else math.inf


def _check(settings: dict[str, Any], chosen_elsewhere: set[str], where: str) -> None:
    """What the schema cannot say of one entry alone: what is missing, and what does not go together."""
    if missing := sorted(set(SETTINGS) - set(NEUTRAL) - set(settings) - chosen_elsewhere):
        raise InputError(f"config: {where}: the setting '{missing[0]}' is missing; give it here or under 'defaults'")
    kind = settings.get("kind", "")
    for name in KINDS[kind].refuses if kind in KINDS else ():
        value = settings.get(name, NEUTRAL[name])
        if (tuple(value) if name == "hidden" else value) != NEUTRAL[name]:
            raise InputError(f"config: {where}.{name}: {value!r}, but a {kind} has no such setting; take it out")
    if kind == "numpy-mlp" and settings.get("optimiser", "sgd") != "sgd":
        raise InputError(f"config: {where}.optimiser: '{settings['optimiser']}', but a numpy-mlp is trained by sgd")
    if kind == "numpy-mlp" and settings.get("precision", "float32") not in ("float32", "float64"):
        raise InputError(f"config: {where}.precision: '{settings['precision']}', but NumPy has float32 and float64")
    if kind == "torch-vgg" and settings.get("batch_norm", "none") not in ("none", "torch"):
        raise InputError(f"config: {where}.batch_norm: '{settings['batch_norm']}', but a torch-vgg takes none or torch")
    if settings.get("alternate_flips") and not settings.get("flip"):
        raise InputError(f"config: {where}.alternate_flips: true, but flip is false; set flip: true")
    if settings.get("bias_rate", 1) != 1 and settings.get("batch_norm", "none") == "none":
        raise InputError(f"config: {where}.bias_rate: {settings['bias_rate']}, but there is no batch norm; take it out")
    if settings.get("nesterov") and not settings.get("momentum"):
        raise InputError(f"config: {where}.nesterov: true, but momentum is 0; Nesterov's step needs momentum")


def check_data(settings: Settings, counts: dict[str, int], shape: tuple[int, int, int], where: str) -> None:
    """Refuses settings that do not fit the data.

    Args:
        counts: images of each split; shape: channels, height and width of an image.

    Raises:
        InputError: the batch is larger than the training split, or the images are too small for this kind of model.
    """
    images = counts["train"] + (counts["validation"] if settings.train_on == "train+validation" else 0)
    if settings.batch_size > images:
        raise InputError(
            f"{where}: batch_size: {settings.batch_size}, but the training split has {images} images; choose a smaller "
            "batch"
        )
    smallest = KINDS[settings.kind].smallest_image
    if min(shape[1:]) < smallest:
        raise InputError(
            f"{where}: kind: a {settings.kind} takes images of {smallest} pixels a side or more, found "
            f"{shape[1]}×{shape[2]}; leave it out of 'run'"
        )
