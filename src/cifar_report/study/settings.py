"""The settings: all that decides what a run computes, besides its seed and its data."""

import hashlib
import json
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_origin, get_type_hints

from pydantic import Field, create_model
from pydantic.dataclasses import dataclass

from cifar_report.base.validation import OR_NULL, STRICT, Mapping, checked
from cifar_report.study.kinds import KINDS

if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[tuple(KINDS)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False, max_length=100)]


def means(words: str, **bounds: Any) -> Any:
    """What a setting means, and the values that it may have."""
    return Field(description=words, **bounds)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings:
    """All that decides what a run computes, besides its seed and its data.

    The fields without a default must be given. A default is neutral, the feature switched off, and may never change:
    a run's identity hashes only the settings that differ from it, so that a new option leaves old runs valid.
    """

    kind: Annotated[KindName, means("the model, and in what it is written")]
    optimiser: Annotated[Literal["sgd", "adam", "adamw"], means("a numpy-mlp has sgd alone")]
    learning_rate: Annotated[Positive, means("of a schedule, the highest")]
    steps: Annotated[Count, means("updates of the weights, a batch each")]
    batch_size: Annotated[int, means("images in a batch", ge=2)]
    preprocessing: Annotated[
        Literal["mean-image", "standardise"],
        means(
            "mean-image: pixels of 0 to 255 minus the training images' mean image; standardise: per channel, to mean 0 "
            "and standard deviation 1"
        ),
    ]
    evaluate_every: Annotated[Count, means("steps between two points of the curve, and between two checkpoints")]
    evaluation_images: Annotated[
        Count,
        means(
            "size of the fixed stratified subset of each split that the curve is evaluated on; the last step takes "
            "whole splits"
        ),
    ]
    threads: Annotated[
        int, means("of one run; part of what the run is, so that --cores changes no result", ge=1, le=1024)
    ]
    train_on: Annotated[Literal["train", "train+validation"], means("whether the validation images are trained on")] = (
        "train"
    )
    hidden: Annotated[Widths, means("units of each hidden layer of an MLP")] = ()
    slope: Annotated[Share, means("of the leaky ReLU for negative inputs")] = 0.0
    initial_std: Annotated[
        float | None,
        means("standard deviation of the initial weights, with biases of 0; null: PyTorch's own initial weights", gt=0),
        OR_NULL,
    ] = None
    dirac: Annotated[
        bool, means("of a VGG: the first output channels of each convolution begin as the identity of its inputs")
    ] = False
    batch_norm: Annotated[
        Literal["none", "autograd", "manual", "torch"],
        means(
            "by automatic differentiation, by derivatives written by hand, or PyTorch's own; a VGG takes none or torch"
        ),
    ] = "none"
    bias_rate: Annotated[
        Positive, means("learning rate of batch norm's biases, as a multiple of that of all else; not of a numpy-mlp")
    ] = 1.0
    momentum: Annotated[Share, means("of sgd")] = 0.0
    nesterov: Annotated[bool, means("Nesterov's form of momentum")] = False
    weight_decay: Annotated[
        float, means("of sgd and adam, added to the gradient; of adamw, decoupled from it", ge=0)
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "one-cycle"], means("of the learning rate; one-cycle rises and falls linearly")
    ] = "constant"
    warmup: Annotated[Share, means("share of the steps that a one-cycle schedule rises for")] = 0.0
    label_smoothing: Annotated[Share, means("of the training loss; not of a numpy-mlp")] = 0.0
    dropout: Annotated[Share, means("probability that a hidden unit is dropped in training; not of a numpy-mlp")] = 0.0
    flip: Annotated[bool, means("mirror each training image with probability 1/2")] = False
    alternate_flips: Annotated[
        bool, means("with flip: whether an image is mirrored is drawn once, and changes from epoch to epoch")
    ] = False
    shift: Annotated[int, means("move each training image by up to so many pixels in both directions", ge=0, le=16)] = 0
    average_decay: Annotated[
        Share, means("of an exponential moving average of the weights, which is then evaluated; 0: none")
    ] = 0.0
    precision: Annotated[
        Literal["float32", "float64", "tf32", "bf16"], means("of the arithmetic; a numpy-mlp has float32 and float64")
    ] = "float32"
    deterministic: Annotated[bool, means("deterministic algorithms on a GPU, at their cost")] = False

    def canonical(self) -> dict[str, Any]:
        """The settings that differ from their neutral default, JSON types only: what an identity is made from."""
        return {name: value for name, value in self.full().items() if getattr(self, name) != NEUTRAL.get(name, MISSING)}

    def full(self) -> dict[str, Any]:
        """All settings, JSON types only."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """From a mapping with the fields' names.

        Raises:
            InputError: a setting is missing, unknown or of a value that it cannot have.
        """
        return checked(lambda given: cls(**given), mapping, "settings")


ANNOTATED = get_type_hints(Settings, include_extras=True)  # each setting's type, with its bounds
# And without: the plain types.
TYPES = {name: str if get_origin(hint) is Literal else hint for name, hint in get_type_hints(Settings).items()}
SETTINGS = tuple(f.name for f in fields(Settings))
NEUTRAL = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}

if TYPE_CHECKING:

    class SomeSettings(Mapping):
        """Some of the settings."""
else:
    SomeSettings = create_model("SomeSettings", __base__=Mapping, **{n: (hint, None) for n, hint in ANNOTATED.items()})


def coerced(mapping: dict[str, Any]) -> dict[str, Any]:
    """Some settings, each of its field's type, so that 1 and 1.0 are one setting.

    Raises:
        InputError: as of `Settings.from_mapping`, but for those that are missing.
    """
    some = checked(SomeSettings.model_validate, mapping, "settings")
    return {name: getattr(some, name) for name in mapping}


def digest(document: Any) -> str:
    """SHA-256 of a JSON document, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
