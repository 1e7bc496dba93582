"""`claims.yaml` as types: what may stand in it, and reading it with messages that name the line.

A comparison's type says what is compared; the function of the same name in `comparisons` measures it.
"""

import math
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cifar_report.analysis.measurements import SHIFTED
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_yaml, yaml_loader
from cifar_report.base.validation import NAME, STRICT, EachOnce, did_you_mean, refused
from cifar_report.base.validation import message as told
from cifar_report.study.settings import SETTINGS

PLACEHOLDERS = ("part", "interval", "estimate", "low", "high", "smallest", "pairs", "runs", "prediction", "reason")
LISTS = ("supporting", "refuting")  # of the deciding parts, each with its interval

Verdict = Literal["supported", "refuted", "mixed", "inconclusive", "untested"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Role = Literal["decides", "premise", "shown"]
Direction = Literal["above", "below", "within"]
Split = Literal["train", "validation", "test"]


def _slug(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise refused(f"expected small letters, digits and hyphens, found {text!r}")
    return text


def _setting(name: str) -> str:
    if name not in SETTINGS:
        raise refused(f"'{name}' is not among the settings; {did_you_mean(name, SETTINGS, 'there are')}")
    return name


def _not_zero(weight: float) -> float:
    if weight == 0:
        raise refused("expected another number than 0")
    return weight


def _distinct(names: tuple[str, str]) -> tuple[str, str]:
    if names[0] == names[1]:
        raise refused(f"expected two variants, found '{names[0]}' twice")
    return names


def _template(template: str) -> str:
    try:
        fields = [(name, format_) for _, name, *format_ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        message = f"expected a sentence with placeholders such as {{estimate}}, found {template!r}: {error}"
        raise refused(message) from error
    if formatted := [name for name, format_ in fields if any(format_)]:
        raise refused(f"expected {{{formatted[0]}}} alone, found it with a format; numbers have that of the report")
    if unknown := [name for name, _ in fields if name.rpartition(".")[2] not in (*PLACEHOLDERS, *LISTS)]:
        hint = did_you_mean(unknown[0], (*PLACEHOLDERS, *LISTS), "there are")
        raise refused(f"unknown placeholder {{{unknown[0]}}}; {hint}")
    return template


def _with_reason(template: str) -> str:
    if "reason" not in (field for _, field, _, _ in string.Formatter().parse(template)):
        raise refused(f"expected a sentence with {{reason}} in it, found {template!r}")
    return template


Text = Annotated[str, Field(min_length=1)]
Variant = Text
Pair = Annotated[tuple[Variant, Variant], Field(strict=False), AfterValidator(_distinct)]  # YAML has lists alone
Slug = Annotated[str, AfterValidator(_slug)]
Setting = Annotated[str, AfterValidator(_setting)]
Template = Annotated[Text, AfterValidator(_template)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, **STRICT)


class _Comparison(_Model):
    sampled: ClassVar[bool] = True  # whether other seeds or trials would give another value


# The seeds that decide, where the rule was chosen after the results of others were known; all of them must be run.
FreshSeeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3), *EachOnce] | None


class Contrast(_Comparison):
    """A weighted sum of variants' whole-split values at the last step: a difference, a main effect or a mean."""

    kind: Literal["contrast"]
    weights: Annotated[dict[Variant, Annotated[float, AfterValidator(_not_zero)]], Field(min_length=1)]
    metric: Literal["accuracy", "loss"]
    split: Literal["train", "validation", "test", "train-minus-test"]  # the last: the generalisation gap
    paired: bool  # by seed
    fresh_seeds: FreshSeeds = None
    # Whose results were known before; they stand beside the fresh ones.
    known_seeds: Annotated[list[Annotated[int, Field(ge=0)]], *EachOnce] = []

    @model_validator(mode="after")
    def _fresh_is_not_known(self) -> "Contrast":
        if self.known_seeds and self.fresh_seeds is None:
            raise refused("expected fresh_seeds beside known_seeds, found none")
        if both := sorted(set(self.known_seeds) & set(self.fresh_seeds or [])):
            raise refused(f"expected fresh_seeds that were not known, found {both[0]} in known_seeds too")
        return self


class NextRun(_Comparison):
    """A variant's accuracy, held against a value that somebody printed of one run."""

    kind: Literal["next-run"]
    variant: Variant
    metric: Literal["accuracy"]
    split: Split


class GradientAgreement(_Comparison):
    """By how much the losses and gradients of two implementations of one network differ, in float64."""

    sampled: ClassVar[bool] = False
    kind: Literal["gradient-agreement"]
    variants: Pair
    metric: Literal["loss"]
    split: Literal["train"]


class SettingEffect(_Comparison):
    """A weighted sum of searched settings' main effects, each of its last value over its first, on accuracy."""

    kind: Literal["setting-effect"]
    variant: Variant  # that takes its settings from the search
    weights: Annotated[dict[Setting, Annotated[float, AfterValidator(_not_zero)]], Field(min_length=1)]
    metric: Literal["accuracy"]
    split: Literal["validation"]
    fresh_seeds: FreshSeeds = None  # of the search


class SettingProgress(_Comparison):
    """How the loss with a setting's greatest value compares along the way with that of its smallest."""

    kind: Literal["setting-progress"]
    variant: Variant  # that takes its settings from the search
    setting: Literal["batch_size"]
    against: Literal["step", "samples_seen"]  # what the two are compared after as much of
    metric: Literal["loss"]
    split: Literal["train", "validation"]
    fresh_seeds: FreshSeeds = None  # of the search


class ShiftTolerance(_Comparison):
    """How much less accuracy the first variant loses on shifted images than the second."""

    kind: Literal["shift-tolerance"]
    variants: Pair
    pixels: Annotated[int, Field(ge=1, le=SHIFTED[-1])]
    lost: Literal["points", "share"]  # of accuracy, or its share of that on the unmoved images
    metric: Literal["accuracy"]
    split: Literal["test"]


Comparison = Contrast | NextRun | GradientAgreement | SettingEffect | SettingProgress | ShiftTolerance
_KINDS = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in Comparison.__args__}  # type: ignore[union-attr]


def _reach(comparison: Comparison) -> float:
    """What an estimate stays below in size, as accuracies are fractions; infinite where it compares other things."""
    match comparison:
        case Contrast(metric="accuracy", weights=weights, split=split):
            sides = [sum(max(sign * weight, 0) for weight in weights.values()) for sign in (1, -1)]
            return sum(sides) if split == "train-minus-test" else max(sides)
        case SettingEffect(weights=weights):
            return sum(map(abs, weights.values()))
        case NextRun():
            return 1
        case ShiftTolerance(lost="points"):
            return 1
    return math.inf


class Part(_Model):
    """A comparison, and what its interval must keep to; without a smallest effect it has no verdict of its own."""

    id: Slug
    label: Text
    # decides: one of those that the claim's verdict follows from; premise: without it nothing follows; shown: neither.
    role: Role = "decides"
    comparison: Annotated[Comparison, Field(discriminator="kind")]
    smallest_effect: float | None = None
    # The side of the smallest effect that supports the claim; within: between its negative and itself.
    direction: Direction = "above"
    why: Text | None = None  # why that effect is the smallest that matters

    @model_validator(mode="after")
    def _bound_is_whole(self) -> "Part":
        if (self.smallest_effect is None) != (self.why is None):
            raise refused("expected smallest_effect and why together, found one of them")
        if self.smallest_effect is None and "direction" in self.model_fields_set:
            raise refused("expected smallest_effect beside direction, found none")
        if self.smallest_effect is None and self.role != "shown":
            raise refused(f"expected smallest_effect of a part with the role {self.role}, found none")
        if self.smallest_effect is not None and not self.comparison.sampled and self.direction != "below":
            raise refused(f"expected the direction below of {self.comparison.kind}, found {self.direction}")
        if self.smallest_effect is not None and self.direction == "within" and self.smallest_effect <= 0:
            raise refused(f"expected a smallest_effect above 0 with the direction within, found {self.smallest_effect}")
        reach = _reach(self.comparison)
        if self.smallest_effect is not None and not abs(self.smallest_effect) < reach:
            raise refused(
                f"expected a smallest_effect between {-reach:g} and {reach:g}, which no accuracy can go beyond, found "
                f"{self.smallest_effect:g}; it is a fraction: 0.525 for 52.5 %, 0.01 for one percentage point"
            )
        return self

    def variants(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Each variant that is compared, and where its name stands in the part."""
        match self.comparison:
            case Contrast(weights=weights):
                yield from ((("comparison", "weights", name), name) for name in weights)
            case GradientAgreement(variants=names) | ShiftTolerance(variants=names):
                yield from ((("comparison", "variants", place), name) for place, name in enumerate(names))
            case NextRun(variant=name) | SettingEffect(variant=name) | SettingProgress(variant=name):
                yield ("comparison", "variant"), name


class Sentences(_Model):
    """What the report says for each verdict: templates of PLACEHOLDERS and LISTS.

    A placeholder stands for the part that the verdict is told by, and behind a part's id and a dot for that part.
    `beside` follows each but untested; its estimates are rounded alike.
    """

    supported: Template
    refuted: Template
    mixed: Template | None = None  # where each part decides
    inconclusive: Template | None = None  # where something is left to chance, or a premise
    beside: Template | None = None
    untested: Annotated[Template, AfterValidator(_with_reason)]

    def parts(self) -> Iterator[tuple[str, str]]:
        """Each sentence's name with the ids of the parts that it names."""
        for name, template in self:
            for _, field, _, _ in string.Formatter().parse(template or ""):
                if field is not None and "." in field:
                    yield name, field.rpartition(".")[0]


class FormerPart(_Model):
    """A part of a former rule: its 95 % interval over the seeds that were known had to keep to the smallest effect."""

    comparison: Contrast
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), *EachOnce]
    smallest_effect: float
    direction: Direction = "above"
    settings: dict[Setting, Any] = {}  # that a search had chosen then: with others, they are other networks


class Frozen(_Model):
    """The commit that fixed a rule, and its time, so that the records of runs can be held against it without git."""

    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
    time: int  # seconds since 1970, as `git log --format=%ct` tells and as run.json has of its own commit


class Change(_Model):
    """That a claim's rule was changed after the results of a first reference were known."""

    rule: Text  # the former one
    reason: Text
    verdict: Verdict  # what the former one gave in the first reference
    frozen: Frozen | None = None  # the present one, before the fresh seeds were trained
    parts: list[FormerPart] = []  # the former one, where it can be computed from runs: all had to hold


class Claim(_Model):
    """A claim: comparisons, and which verdict follows from those that decide."""

    id: Slug
    title: Text
    statement: Text
    decides: Literal["all", "each"]  # all: it says that they all hold; each: it speaks of cases, which may differ
    parts: Annotated[list[Part], Field(min_length=1)]
    sentences: Sentences
    changed: Change | None = None

    def variants(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Each variant that is compared, and where its name stands in the claim."""
        for place, part in enumerate(self.parts):
            yield from ((("parts", place, *where), name) for where, name in part.variants())
        for place, former in enumerate(self.changed.parts if self.changed else []):
            for name in former.comparison.weights:
                yield ("changed", "parts", place, "comparison", "weights", name), name

    @model_validator(mode="after")
    def _is_decided(self) -> "Claim":
        if all(part.role != "decides" for part in self.parts):
            raise refused("expected a part with the role decides, found none")
        if (self.decides == "each") != (self.sentences.mixed is not None):
            raise refused("expected sentences.mixed with decides: each, and with it alone")
        counting = [part for part in self.parts if part.role != "shown"]
        known = {seed for former in (self.changed.parts if self.changed else []) for seed in former.seeds}
        for part in self.parts:
            if both := sorted(known & set(getattr(part.comparison, "fresh_seeds", None) or [])):
                raise refused(
                    f"expected fresh_seeds of '{part.id}' that were not known, found {both[0]} in changed.parts too"
                )
        is_open = any(part.role == "premise" or part.comparison.sampled for part in counting)
        if is_open != (self.sentences.inconclusive is not None):
            raise refused("expected sentences.inconclusive, but not where gradient-agreement alone decides")
        return self


_CLAIMS = TypeAdapter(Annotated[list[Claim], Field(min_length=1)])


def load(path: Path, catalogue: Iterable[str] | None = None) -> list[Claim]:
    """The claims of a file, validated.

    Args:
        path: claims.yaml.
        catalogue: names of all variants that exist; None: every name is taken for one of them.

    Raises:
        InputError: names the line, the claim, the key and the value, what was expected and what to do.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected the claims, found {getattr(error, 'strerror', error)}") from error
    document, node = read_yaml(path), yaml.compose(text, yaml_loader())

    def wrong(where: tuple[str | int, ...], message: str) -> InputError:
        claim = document[int(where[0])] if where else None
        name = f"claim '{claim.get('id', int(where[0]) + 1)}': " if isinstance(claim, dict) else ""
        key = ".".join(map(str, where[1:]))
        return InputError(f"{path}:{_line(node, where)}: {name}{f'{key}: ' if key else ''}{message}")

    try:
        claims = _CLAIMS.validate_python(document)
    except ValidationError as error:
        # A misspelt key is missing under its right name too, and tells more.
        errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise wrong(*_explained(errors[0])) from None
    known = None if catalogue is None else list(catalogue)
    lines: dict[str, int] = {}
    for i, claim in enumerate(claims):
        if claim.id in lines:
            raise wrong((i, "id"), f"'{claim.id}' is the id of the claim in line {lines[claim.id]} too")
        lines[claim.id] = _line(node, (i, "id"))
        for place, part in enumerate(claim.parts):
            for key in ("id", "label"):
                if getattr(part, key) in (getattr(other, key) for other in claim.parts[:place]):
                    message = f"{getattr(part, key)!r} is the {key} of another part of the claim too"
                    raise wrong((i, "parts", place, key), message)
        for where, name in claim.variants():
            if known is not None and name not in known:
                hint = did_you_mean(name, known, "there are")
                raise wrong((i, *where), f"'{name}' is not among the variants; {hint}")
        ids = [part.id for part in claim.parts]
        for name, part_id in claim.sentences.parts():
            if part_id not in ids:
                hint = did_you_mean(part_id, ids, "there are")
                raise wrong((i, "sentences", name), f"'{part_id}' is not the id of a part; {hint}")
    return claims


def _explained(error: Any) -> tuple[tuple[str | int, ...], str]:
    """Where one of pydantic's errors is in the file, and what to do about it."""
    place, value, context = error["loc"], error["input"], error.get("ctx", {})
    # pydantic names the kind of a comparison as a step of its own.
    where = tuple(step for i, step in enumerate(place) if not (step in _KINDS and place[i - 1] == "comparison"))
    where = where[:-1] if where and where[-1] == "[key]" else where  # it is the key that is refused
    match error["type"]:
        case "extra_forbidden":
            around = place[-2]
            models = {"sentences": Sentences, "changed": Change} | _KINDS
            inner = FormerPart if "changed" in place else Part
            model = models.get(around) or (inner if "parts" in place else Claim)
            hint = did_you_mean(str(where[-1]), model.model_fields, "there are")
            return where, f"unknown key, with the value {value!r}; {hint}"
        case "literal_error":
            return where, _not_one_of(re.findall("'(.*?)'", context["expected"]), value)
        case "union_tag_invalid":
            return (*where, "kind"), _not_one_of(_KINDS, context["tag"])
        case "refused":
            return where, error["msg"]
        case "missing":
            return where, "expected this key, found none"
        case "union_tag_not_found":
            return (*where, "kind"), "expected this key, found none"
    return where, told(error)


def _not_one_of(allowed: Iterable[str], value: Any) -> str:
    names = ", ".join(allowed)
    return f"expected one of {names}, found {value!r}; {did_you_mean(str(value), allowed, 'there are')}"


def _line(node: yaml.Node | None, where: tuple[str | int, ...]) -> int:
    """The line of a value, that of its key where it has one; of the nearest thing around it where it is missing."""
    line = node.start_mark.line + 1 if node else 1
    for step in where:
        if isinstance(node, yaml.MappingNode):
            inner = [(key, value) for key, value in node.value if key.value == str(step)]
        elif isinstance(node, yaml.SequenceNode):
            inner = [(value, value) for value in node.value[int(step) : int(step) + 1]]
        else:
            inner = []
        if not inner:
            break
        mark, node = inner[0]
        line = mark.start_mark.line + 1
    return line
