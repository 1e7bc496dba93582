"""A study as it is written in config.yaml: every key, what it may hold and what it means.

`python -m cifar_report.study.document` prints the same as a JSON schema, for editors and for whoever looks keys up:
workflow/schemas/config.schema.yaml.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field
from pydantic.json_schema import GenerateJsonSchema

from cifar_report.base.letters import WRITE_OTHERWISE, not_printed
from cifar_report.base.validation import ADDRESS, NAME, OR_NULL, SHA256, EachOnce, Mapping, refused
from cifar_report.study.search import SearchEntry, Seeds
from cifar_report.study.settings import SomeSettings, means

TITLE = "# Written by `python -m cifar_report.study.document`. Edit src/cifar_report/study/, not this file.\n"


def _printed(text: str) -> str:
    if lacking := not_printed(text):
        raise refused(f"{text!r} has {lacking}, which the report's fonts lack; {WRITE_OTHERWISE}")
    return text


Name = Annotated[str, Field(pattern=NAME, max_length=60)]
Names = Annotated[list[str], *EachOnce]
Printed = Annotated[str, AfterValidator(_printed)]
Line = Annotated[Printed, Field(min_length=1, max_length=300)]
Given = Annotated[str, Field(min_length=1)]


class Report(Mapping):
    """What the report says of itself."""

    title: Annotated[
        Line, means("on the title page; a study of the practical's data has the practical's, unless told")
    ] = ""
    author: Annotated[Line, means("on the title page; likewise, and of other data none, unless told")] = ""
    affiliation: Annotated[Printed, Field(max_length=300), means("on the title page, below the author")] = ""
    best: Annotated[
        dict[str, Names],
        means("by the name of a variant, those that go beyond it: shown beside it, and the last one in detail"),
    ] = Field(default_factory=dict)


class Practical(Mapping):
    """What the study reproduces. A study of other data knows nothing of it."""

    datasets: Annotated[Names, means("the data that it was about: its results are set beside those of these alone")] = (
        Field(default_factory=list)
    )
    copies: Annotated[
        dict[str, Line],
        means("what those of them are that are copies of its images, said beside each comparison with it"),
    ] = Field(default_factory=dict)
    title: Annotated[Line, means("of the report on it")] = ""
    author: Annotated[Line, means("of the report on it")] = ""
    accuracies: Annotated[
        dict[str, Annotated[float | None, Field(ge=0, le=1), OR_NULL]],
        means(
            "its test accuracies, in its figures' order, by the variant that reproduces each, as fractions; null: none"
        ),
    ] = Field(default_factory=dict)
    claims: Annotated[str, means("the file of its claims")] = ""


class Official(Mapping):
    """The official archive of CIFAR-10."""

    source: Annotated[Literal["cifar10"], means("the official archive")]
    archive: Annotated[Given, means("a copy of cifar-10-python.tar.gz on disk, instead of a download")] = ""
    mirrors: Annotated[
        list[Annotated[str, Field(pattern=ADDRESS)]],
        means("addresses to download it from, in this order; checked before it is opened"),
    ] = Field(default_factory=list)


class ImageFolder(Mapping):
    """Images as files, a folder for each class."""

    source: Annotated[Literal["image-folder"], means("a folder, tar or zip with train/<class>/* and test/<class>/*")]
    path: Annotated[Given, means("the folder, tar or zip")]
    sha256: Annotated[str, Field(pattern=SHA256), means("of the tar or zip; anything else is refused")] = ""
    printed: Annotated[
        dict[str, Printed],
        means(
            "names of classes in print, by those of their folders; a class that is left out is printed as its folder"
        ),
    ] = Field(default_factory=dict)


class Digits(Mapping):
    """Handwritten digits of 8×8 pixels."""

    source: Annotated[Literal["digits"], means("scikit-learn's, embedded")]


class VariantEntry(SomeSettings):
    """What may be trained; a variant takes every setting of defaults too."""

    label: Annotated[
        Printed, means("its name in the report; the variant's own name where it has none", min_length=1, max_length=100)
    ] = ""
    like: Annotated[str, means("a variant whose settings are taken over; what stands beside it replaces them")] = ""
    search: Annotated[str, means("the search whose choice completes the settings")] = ""
    seeds: Annotated[Seeds | None, means("of this variant, instead of the study's; null: the study's")] = None


class Shifts(Mapping):
    """Test accuracy on images moved by 0 to 4 pixels."""

    variants: Annotated[Names, means("which ones, of those that the study runs")]
    images: Annotated[
        int,
        means("size of the stratified subset of the test split that they are measured on; without it the whole", ge=1),
    ] = 0


class Flips(Mapping):
    """Test accuracy where an answer is the mean of those to an image and to its mirror image."""

    variants: Annotated[Names, means("which ones, of those that the study runs")]


class BatchStatistics(Mapping):
    """Test accuracy where batch norm takes the statistics of each batch of test images."""

    variants: Annotated[Names, means("which ones, of those that the study runs; those with batch norm are measured")]


class Agreement(Mapping):
    """Whether two implementations of one network compute the same losses and gradients, step by step in float64."""

    pairs: Annotated[
        list[Annotated[list[str], *EachOnce, Field(min_length=2, max_length=2)]],
        means("two variants each that differ in kind or batch_norm alone, of those that the study runs"),
    ]


class StudyDocument(Mapping):
    """A study."""

    study: Annotated[Name, means("names the folder below results/; every overlay sets its own")]
    report: Annotated[Report, means("what the report says of itself")]
    practical: Annotated[Practical, means("what the study reproduces; a study of other data knows nothing of it")] = (
        Field(default_factory=Practical)
    )
    claims: Annotated[
        str, means("a file of claims to test, instead of the practical's; a study of other data has none, unless told")
    ] = ""
    dataset: Annotated[str, means("which entry of datasets the study uses")]
    datasets: Annotated[
        dict[Name, Annotated[Official | ImageFolder | Digits, Field(discriminator="source")]],
        means("where images come from, by a name of your own"),
    ]
    validation_images: Annotated[
        int,
        means("how many training images are held out, stratified; a search is judged by them; 0: none", ge=0),
    ]
    seeds: Annotated[Seeds, means("a run for each, of every variant that has no seeds of its own")]
    run: Annotated[Names, Field(min_length=1), means("the variants of the study, in the order of the tables")]
    defaults: Annotated[SomeSettings, means("settings of every variant that does not set them itself")] = Field(
        default_factory=SomeSettings
    )
    variants: Annotated[
        dict[Name, VariantEntry],
        means("what may be trained, by a name of your own; a variant takes every setting of defaults too"),
    ]
    shifts: Annotated[Shifts, means("test accuracy on images moved by 0 to 4 pixels")]
    test_time_flips: Annotated[
        Flips, means("test accuracy where an answer is the mean of those to an image and to its mirror image")
    ] = Field(default_factory=lambda: Flips(variants=[]))
    batch_statistics: Annotated[
        BatchStatistics,
        means("test accuracy where batch norm takes the statistics of each batch of 32 test images, as in training"),
    ] = Field(default_factory=lambda: BatchStatistics(variants=[]))
    agreement: Annotated[
        Agreement,
        means("whether two implementations compute the same losses and gradients, for 50 steps in float64"),
    ] = Field(default_factory=lambda: Agreement(pairs=[]))
    tensorboard: Annotated[
        bool,
        means("whether TensorBoard event files of all runs are written, below results/<study>/tensorboard"),
    ] = False
    search: Annotated[
        dict[Name, SearchEntry], means("what is tried and judged on the validation split, by a name of your own")
    ] = Field(default_factory=dict)
    ablations: Annotated[
        Names,
        means(
            "searches by lists, of variants that the study runs: what each ingredient is worth that the configurations "
            "after the first take out of it"
        ),
    ] = Field(default_factory=list)
    recipes: Annotated[
        Names, means("searches by lists, of variants that the study runs: a log of the recipes that were tried")
    ] = Field(default_factory=list)


class _Plain(GenerateJsonSchema):
    """JSON schemas without titles, references and defaults that only say that nothing was given."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value

    def default_schema(self, schema: Any) -> dict[str, Any]:
        inner, default = self.generate_inner(schema["schema"]), schema.get("default")
        return inner | {"default": default} if default or default is False else inner

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        names, values = (self.generate_inner(schema[f"{part}_schema"]) for part in ("keys", "values"))
        return {"type": "object", "propertyNames": names, "additionalProperties": values}

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        return {"oneOf": super().tagged_union_schema(schema)["oneOf"]}

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        inner = self.generate_inner(schema["schema"])
        return inner | {"type": [inner["type"], "null"]}


def schema() -> dict[str, Any]:
    """The JSON schema of a study."""
    whole = StudyDocument.model_json_schema(schema_generator=_Plain)
    definitions = whole.pop("$defs")

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]] | {k: v for k, v in part.items() if k != "$ref"}
        return {k: inlined(v) for k, v in part.items() if not (k == "title" and isinstance(v, str))}

    return {"$schema": GenerateJsonSchema.schema_dialect} | inlined(whole)


def schema_text() -> str:
    """The JSON schema as the file has it."""
    return TITLE + yaml.safe_dump(schema(), sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    print(schema_text(), end="")
