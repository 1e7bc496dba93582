"""A search over some settings of a variant, judged on the validation split: as it is written, and what it trains.

What a variant's ingredients are worth, and which recipes were tried, are lists of configurations and searches too.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, WrapValidator

from cifar_report.base.errors import InputError
from cifar_report.base.validation import NAME, EachOnce, Mapping, checked
from cifar_report.study.settings import ANNOTATED, NEUTRAL, TYPES, Count, Settings, SomeSettings, digest, means

MOST_TRIALS = 10_000  # of a search
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Seeds = Annotated[list[Seed], Field(min_length=1), *EachOnce]


def _as_written(value: Any, check: Callable[[Any], Any]) -> Any:
    check(value)
    return value


# The end of a range may be one of a setting that takes integers.
Number = Annotated[float, WrapValidator(_as_written)]


class Axis(Mapping):
    """A setting that a search varies: `values` to choose from, or a range."""

    setting: Annotated[
        Literal[
            "optimiser", "learning_rate", "steps", "batch_size", "preprocessing", "hidden", "slope", "initial_std",
            "batch_norm", "momentum", "nesterov", "weight_decay", "schedule", "warmup", "label_smoothing", "dropout",
            "flip", "shift", "average_decay",
        ],
        means("which one"),
    ]  # fmt: skip
    values: Annotated[list[Any], Field(min_length=1), means("to choose from")] = Field(default_factory=list)
    low: Annotated[Number, means("lower end of a range to draw from; successive halving alone")] = 0
    high: Annotated[Number, means("its upper end")] = 0
    log: Annotated[bool, means("whether the logarithm is drawn evenly, not the value")] = False

    def space(self) -> Any:
        """The values, or the range as {"low", "high", "log"}."""
        return self.values or {"low": self.low, "high": self.high, "log": self.log}

    def size(self, halving: bool, grid: str) -> float:
        """How many values there are to choose from.

        Raises:
            InputError: they are not such as the setting takes, or no range.
        """
        at, given = f"{grid}.{self.setting}", self.model_fields_set
        if "values" in given:
            if both := [key for key in ("low", "high", "log") if key in given]:
                raise InputError(f"config: {at}.{both[0]}: stands beside 'values'; give values, or low and high")
            for value in self.values:
                checked(_taken(self.setting), value, "config", at)
            return len(self.values)
        if missing := [key for key in ("low", "high") if key not in given]:
            raise InputError(f"config: {at}: '{missing[0]}' is missing; give values, or low and high")
        if not halving:
            raise InputError(
                f"config: {at}: is a range, but a grid has values; list them, or set method: successive-halving"
            )
        if TYPES[self.setting] not in (int, float, float | None):
            raise InputError(f"config: {at}: is a range, but the setting is no number; list its values")
        for key, value in (("low", self.low), ("high", self.high)):
            checked(_taken(self.setting), value, "config", f"{at}.{key}")
        if not self.low < self.high:
            raise InputError(f"config: {at}: low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise InputError(f"config: {at}.low: {self.low}, but a logarithmic range begins above 0")
        return self.high - self.low + 1 if TYPES[self.setting] is int else math.inf


@cache
def _taken(setting: str) -> Callable[[Any], Any]:
    return TypeAdapter(ANNOTATED[setting], config=ConfigDict(strict=True)).validate_python


class SearchEntry(Mapping):
    """A search, judged on the validation split."""

    method: Annotated[
        Literal["grid", "list", "successive-halving"],
        means(
            "grid, the default: every combination; list: the configurations that are named; successive-halving: Optuna "
            "draws configurations, and the better ones train for longer"
        ),
    ] = "grid"
    like: Annotated[str, means("the variant whose settings the trials have, but for those that the search varies")]
    settings: Annotated[SomeSettings, means("of every trial, instead of the variant's: to train for less long")] = (
        Field(default_factory=SomeSettings)
    )
    seeds: Annotated[
        Seeds,
        means(
            "a trial for each, of every configuration: of a list with this seed, of a grid with one that follows from "
            "it and the configuration, so that no two trials share their draws"
        ),
    ] = Field(default_factory=list)
    seed: Annotated[Seed, means("of every trial of a successive halving, and of its draws")] = 0
    trials: Annotated[Count, means("configurations drawn; of successive halving, as the next four")] = 0
    batch: Annotated[Count, means("configurations drawn at a time")] = 0
    reduction: Annotated[
        int,
        means(
            "one in so many configurations goes on to the next rung, which trains so many times as long", ge=2, le=100
        ),
    ] = 0
    rungs: Annotated[
        int, means("the last one trains for as many steps as the variant that the search is like", ge=1, le=20)
    ] = 0
    workers: Annotated[
        int, means("processes that train a batch, 1 by default; no result depends on it", ge=1, le=1024)
    ] = 1
    grid: Annotated[list[Axis], means("the settings that are varied")] = Field(default_factory=list)
    configurations: Annotated[
        dict[Annotated[str, Field(pattern=NAME, max_length=60)], SomeSettings],
        means("of a list, by a name of your own: in what each differs from the variant, {} for in nothing"),
    ] = Field(default_factory=dict)

    def halving(self) -> "Halving | None":
        """How it spends its steps, where it draws its trials."""
        if self.method != "successive-halving":
            return None
        return Halving(**{f.name: getattr(self, f.name) for f in fields(Halving)})

    def check(self, at: str) -> None:
        """Refuses keys that do not go together, and a space of too many or too few trials.

        Args:
            at: the key of the search.
        """
        halving, given = self.halving(), self.model_fields_set
        needed = ["seed", *(f.name for f in fields(Halving) if f.default is MISSING)]
        if halving and (missing := [key for key in needed if key not in given]):
            raise InputError(f"config: {at}: '{missing[0]}' is missing; successive halving takes {', '.join(needed)}")
        if halving and self.seeds:
            raise InputError(f"config: {at}.seeds: {self.seeds}, but successive halving has one seed; take it out")
        if not halving and "seed" in given:
            raise InputError(
                f"config: {at}.seed: {self.seed}, but a {self.method} has a trial for each seed; write "
                f"seeds: [{self.seed}]"
            )
        if not halving and not self.seeds:
            raise InputError(f"config: {at}: 'seeds' is missing; a {self.method} has a trial for each")
        varied, other = ("configurations", "grid") if self.method == "list" else ("grid", "configurations")
        if not getattr(self, varied):
            raise InputError(f"config: {at}: '{varied}' is missing; with method: {self.method} it says what is tried")
        if other in given:
            raise InputError(
                f"config: {at}.{other}: stands there, but method: {self.method} takes {varied}; take it out"
            )
        for name, entry in self.configurations.items():
            if fixed := sorted({"kind", "train_on"} & entry.model_fields_set):
                raise InputError(
                    f"config: {at}.configurations.{name}.{fixed[0]}: is not for a search to vary; take it out"
                )
        if not halving and (useless := [f.name for f in fields(Halving) if f.name in given]):
            raise InputError(
                f"config: {at}.{useless[0]}: {getattr(self, useless[0])}, but a {self.method} draws nothing; take it "
                "out, or set method: successive-halving"
            )
        settings = [axis.setting for axis in self.grid]
        if repeated := sorted({setting for setting in settings if settings.count(setting) > 1}):
            raise InputError(f"config: {at}.grid: has the setting '{repeated[0]}' twice; join their values")
        space = math.prod(axis.size(halving is not None, f"{at}.grid") for axis in self.grid)
        space *= max(len(self.configurations), 1)
        if (trials := halving.trials if halving else space * len(self.seeds)) > MOST_TRIALS:
            raise InputError(f"config: {at}.grid: {trials:,} trials, expected at most {MOST_TRIALS:,}")
        if halving and "steps" in settings:
            raise InputError(
                f"config: {at}.grid.steps: is searched, but successive halving sets the steps itself; take it out"
            )
        if halving:
            halving.check(space, at)


@dataclass(frozen=True, kw_only=True)
class Halving:
    """How a search by successive halving (Jamieson and Talwalkar 2016) spends its steps."""

    trials: int  # configurations drawn
    batch: int  # drawn at a time; the next batch knows the accuracies of those before
    reduction: int  # one in so many configurations goes on to the next rung, which trains so many times as long
    rungs: int  # the last one trains for the variant's own number of steps
    workers: int = 1  # processes that train a batch; no result depends on it

    def check(self, space: float, at: str) -> None:
        """Refuses more trials than the space holds, and fewer than the rungs need."""
        last = self.reduction ** (self.rungs - 1)
        if self.trials > space:
            raise InputError(
                f"config: {at}.trials: {self.trials}, but the space holds {space} configurations; take at most so many"
            )
        if self.batch > self.trials:
            raise InputError(
                f"config: {at}.batch: {self.batch}, but there are {self.trials} trials; take at most so many"
            )
        if self.trials < last:
            raise InputError(
                f"config: {at}.trials: {self.trials}, but {self.rungs} rungs, each for one in {self.reduction}, need "
                f"{last} at least"
            )


class Trial(NamedTuple):
    """A configuration that a search trains once."""

    settings: Settings
    replicate: int  # the one of the search's seeds that it is listed under
    seed: int  # that it is trained with


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search whose trials have the settings of the variant that it is like.

    `grid` holds the values of each setting or, where `halving` draws them, a range {"low", "high", "log"}. Of a list of
    configurations, `listed` holds these and `grid` the values that occur in them.
    """

    name: str
    like: str
    seeds: tuple[int, ...]  # of each configuration; where they are drawn one, which the draws have too
    grid: dict[str, Any]
    base: dict[str, Any]
    halving: Halving | None = None  # None: every combination is trained, or every configuration of a list
    listed: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # all settings of the grid, by the configuration's name

    @property
    def method(self) -> str:
        """`grid`, `list` or `successive-halving`."""
        return "successive-halving" if self.halving else "list" if self.listed else "grid"

    def trials(self) -> dict[str, Trial]:
        """The trials by name, those of a configuration one after the other; none where they are yet to be drawn.

        The seeds of a list are blocks: its configurations are compared with equal draws. Each trial of a grid has draws
        of its own, by the 32 bits that its name begins with: they stay when the grid grows.
        """
        every = [] if self.halving else [Settings.from_mapping(self.base | values) for values in self.combinations()]
        named = {trial_name(settings, seed): (settings, seed) for settings in every for seed in self.seeds}
        return {
            name: Trial(settings, seed, seed if self.listed else int(name[:8], 16))
            for name, (settings, seed) in named.items()
        }

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All combinations of a grid, or the configurations of a list.

        Of a space to draw from, those of each two settings, a range standing for its ends: enough to find two values
        that do not go together.
        """
        if self.listed:
            yield from self.listed.values()
            return
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


def listed(entry: SearchEntry, base: dict[str, Any], at: str) -> dict[str, dict[str, Any]]:
    """The configurations of a list, each with a value for every setting in which one of them differs from the base.

    Raises:
        InputError: two of them are the same.
    """
    changes = {name: changed.given() for name, changed in entry.configurations.items()}
    varied = dict.fromkeys(setting for changed in changes.values() for setting in changed)
    whole = {name: {s: (NEUTRAL | base | changed).get(s) for s in varied} for name, changed in changes.items()}
    names: dict[str, str] = {}
    for name, values in whole.items():
        if (first := names.setdefault(digest(values), name)) != name:
            raise InputError(f"config: {at}.configurations.{name}: is the same as '{first}'; take one of them out")
    return whole


def trial_name(settings: Settings, seed: int) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a trial's settings and the seed it is listed under."""
    return digest({"settings": settings.canonical(), "seed": seed})[:16]
