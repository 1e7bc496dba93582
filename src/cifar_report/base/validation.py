"""A document against its type: it is taken, or refused by a message with the key, what was found and what is expected.

The types are pydantic's: bounds and descriptions stand at the field. Values are taken strictly, so that a boolean is no
integer and 2.0 none either; but an integer is a number, since YAML writes 1 for 1.0.
"""

import difflib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from cifar_report.base.errors import InputError

T = TypeVar("T")
STRICT = ConfigDict(strict=True, extra="forbid")
LARGEST_NUMBER = 2**53  # beyond it, floats skip integers
MOST_VALUES, DEEPEST = 100_000, 20  # of a document
NAME = "^[a-z0-9]+(-[a-z0-9]+)*$"
SHA256 = "^[0-9a-f]{64}$"
COMMIT = "^[0-9a-f]{7,64}$"
ADDRESS = "^https?://"
_SHAPES = {
    NAME: "a name is small letters and digits, with single hyphens between",
    SHA256: "a SHA-256 is 64 hexadecimal digits in small letters",
    COMMIT: "a commit is 7 to 64 hexadecimal digits in small letters",
    ADDRESS: "an address begins with http:// or https://",
}
# What is expected, by pydantic's name of the error.
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "float_or_null": "a number or null",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
    "string_too_short": "text of at least {min_length} character(s)",
    "string_too_long": "text of at most {max_length} characters",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
}


class Mapping(BaseModel):
    """A mapping with fixed keys."""

    model_config = ConfigDict(frozen=True, **STRICT)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and (unknown := sorted(set(value) - set(cls.model_fields))):
            hint = did_you_mean(unknown[0], cls.model_fields, "known keys are")
            raise refused(f"unknown key '{unknown[0]}' = {_short(value[unknown[0]])}; {hint}")
        return value

    def given(self) -> dict[str, Any]:
        """What the document says, JSON types only; no defaults."""
        return self.model_dump(mode="json", exclude_unset=True)


def refused(message: str) -> PydanticCustomError:
    """What a validator raises to refuse a value by a message of its own, which comes after the key."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def _each_once(values: list[Any]) -> list[Any]:
    if repeated := [value for value, times in Counter(values).items() if times > 1]:
        raise refused(f"has {repeated[0]!r} twice, expected each once")
    return values


EachOnce = (AfterValidator(_each_once), Field(json_schema_extra={"uniqueItems": True}))  # of a list


def _float_or_null(value: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except ValidationError as error:
        if error.errors()[0]["type"] == "float_type":
            raise PydanticCustomError("float_or_null", "expected a number or null") from None
        raise


OR_NULL = WrapValidator(_float_or_null)  # the last of the annotations of a `float | None`: its message names null


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The nearest of the names that there are, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"{otherwise} {', '.join(known)}"


def checked(validate: Callable[[Any], T], document: Any, what: str, at: str = "") -> T:
    """What a type's `validate` makes of a document.

    Args:
        what: the document, as the message names it; at: the keys that lead to this part of it, with points between.

    Raises:
        InputError: it does not fit; the message names the first thing that does not.
    """
    try:
        return validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(filter(None, (at, *_path(first, document))))
        raise InputError(": ".join(filter(None, (what, path, message(first))))) from None


def _path(error: ErrorDetails, document: Any) -> list[str]:
    """The keys that lead to what is wrong, without the names that pydantic gives to its own steps."""
    keys = error["loc"]
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        keys = keys[:-1]
    elif keys[-1:] == ("[key]",):
        keys = keys[:-2]
    path = []
    for key in keys:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(str(key))
    return [*path, "source"] if error["type"] == "union_tag_invalid" else path


def message(error: ErrorDetails) -> str:
    """What is wrong with a value, in words: what was found, what is expected."""
    kind, value, about = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "refused":
            return error["msg"]
        case "missing":
            return f"'{error['loc'][-1]}' is missing"
        case "union_tag_not_found":
            return f"{about['discriminator']} is missing"
        case "unexpected_keyword_argument" | "extra_forbidden":
            return f"unknown key '{error['loc'][-1]}' = {_short(value)}"
        case "string_pattern_mismatch":
            return f"{_short(value)} is not allowed: {_SHAPES.get(about['pattern'], error['msg'])}"
        case "union_tag_invalid":
            value = about["tag"]
    whole = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in about.items()}
    expected = _EXPECTED[kind].format(**whole) if kind in _EXPECTED else error["msg"]
    return f"{_short(value)}, expected {expected}" + _hint(kind, value, expected)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} …"


def _hint(kind: str, value: Any, expected: str) -> str:
    if not isinstance(value, str):
        return ""
    if kind in ("literal_error", "union_tag_invalid"):
        near = difflib.get_close_matches(value, re.findall("'([^']*)'", expected), n=1)
        return f"; did you mean '{near[0]}'?" if near else ""
    if kind in ("int_type", "float_type", "float_or_null") and (number := _as_yaml(value, kind == "int_type")):
        return f"; YAML took it for text: write {number}"
    return ""


def _as_yaml(text: str, integer: bool) -> str:
    """A number such that YAML takes it for one: with a point, and a sign in the exponent. Empty for what is none."""
    if not (parts := re.fullmatch(r"([+-]?\d+)(\.\d*)?(?:[eE]([+-]?)(\d+))?", text)):
        return ""
    whole, fraction, sign, exponent = parts.groups()
    if integer and text != whole:
        return str(int(float(text))) if float(text).is_integer() else ""
    return f"{whole}{fraction or '.0'}e{sign or '+'}{exponent}" if exponent else f"{text} without quotes"


def check_plain(document: Any, what: str) -> None:
    """Raises InputError for what YAML can say and JSON cannot, and for what no path, file or LaTeX source can hold."""
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(document, ())]
    count = 0
    while waiting:
        value, path = waiting.pop()
        where = ": ".join(filter(None, (what, ".".join(map(str, path)))))
        count += 1
        if count > MOST_VALUES or len(path) > DEEPEST:
            raise InputError(
                f"{what}: expected at most {MOST_VALUES:,} values, {DEEPEST} deep, found more; "
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
