"""The prepared data set: verified arrays in a folder, made from a source once and opened by every job."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from cifar_report.base.errors import InputError
from cifar_report.base.files import array_digest, atomic, read_json, to_json, write_text
from cifar_report.base.letters import WRITE_OTHERWISE, composed, not_printed
from cifar_report.base.randomness import Purpose, generator, stratified_indices
from cifar_report.base.validation import checked
from cifar_report.data import sources
from cifar_report.data.archives import LIMITS
from cifar_report.data.sources import CIFAR10_ARCHIVE, CIFAR10_MD5, CIFAR10_SHA256, Arrays

__all__ = [
    "CIFAR10_ARCHIVE",
    "CIFAR10_MD5",
    "CIFAR10_SHA256",
    "LIMITS",
    "SPLITS",
    "Arrays",
    "Dataset",
    "Description",
    "load",
    "prepare",
]

SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
ArrayName = Literal[
    "train-images", "train-labels", "validation-images", "validation-labels", "test-images", "test-labels"
]
Count = Annotated[int, pydantic.Field(ge=0)]


class Description(pydantic.BaseModel):
    """What dataset.json says."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True, extra="forbid")

    name: str = pydantic.Field(description="of the data set in the configuration")
    source: Literal["cifar10", "image-folder", "digits"]
    class_names: list[str] = pydantic.Field(min_length=1, description="by label")
    counts: dict[Split, Count] = pydantic.Field(min_length=len(SPLITS), description="images in each split")
    shape: list[Count] = pydantic.Field(min_length=3, max_length=3, description="channels, height, width")
    mean: list[float] = pydantic.Field([], description="of each channel of the training images, from 0 to 255")
    std: list[float] = pydantic.Field([], description="likewise")
    passed_over: dict[str, Count] = pydantic.Field({}, description="files that were not read, by reason")
    sha256: dict[ArrayName, str] = pydantic.Field(min_length=2 * len(SPLITS), description="of each array")


@dataclass(frozen=True)
class Dataset:
    """Prepared arrays in a folder. They are mapped into memory, not read, and shared between jobs."""

    folder: Path
    said: Description  # by dataset.json
    opened: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def description(self) -> dict[str, Any]:
        """What dataset.json says, as it stands there."""
        return self.said.model_dump()

    @property
    def name(self) -> str:
        """The dataset's name in the configuration."""
        return self.said.name

    @property
    def source(self) -> str:
        """cifar10, image-folder or digits."""
        return self.said.source

    @property
    def class_names(self) -> list[str]:
        """By label."""
        return self.said.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.said.shape
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split."""
        return {split: count for split, count in self.said.counts.items()}

    def split(self, name: str) -> Arrays:
        """Images and labels of train, validation or test, verified against their digests.

        Raises:
            InputError: an array is missing, is not the one that was prepared, or not what dataset.json says of it.
        """
        images, labels = self._array(f"{name}-images"), self._array(f"{name}-labels")
        found = (len(images), len(labels), images.shape[1:], bool((labels < len(self.class_names)).all()))
        if found != (self.counts[name], self.counts[name], self.shape, True):
            raise InputError(
                f"{self.folder / 'dataset.json'}: its counts, shape or class_names are not those of the {name} arrays, "
                "so it was altered since it was prepared; delete the dataset folder, it is remade"
            )
        return images, labels

    def digests(self, test: bool = True) -> dict[str, str]:
        """SHA-256 of each array, without those of the test split on request."""
        return {k: v for k, v in self.said.sha256.items() if test or not k.startswith("test-")}

    def arrays(self, test: bool = True) -> dict[str, np.ndarray]:
        """The arrays that `digests` names, each verified once.

        Raises:
            InputError: as of `split`.
        """
        for name in SPLITS[: 3 if test else 2]:
            if f"{name}-images" not in self.opened:
                self.opened.update(zip((f"{name}-images", f"{name}-labels"), self.split(name), strict=True))
        return {name: self.opened[name] for name in self.digests(test)}

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array = np.lib.format.open_memmap(path, mode="c")
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: expected an array, found no file; delete the dataset folder, it is remade"
            ) from error
        except Exception as error:  # NumPy's reader of headers raises errors of many kinds, such as TokenError
            raise InputError(
                f"{path}: expected an array, found a damaged file ({error}); delete the dataset folder, it is remade"
            ) from error
        if array_digest(array) != self.digests()[name]:
            raise InputError(
                f"{path}: its SHA-256 differs from the one in dataset.json, so it was altered since it was prepared; "
                "delete the dataset folder, it is remade"
            )
        return array


def load(folder: Path) -> Dataset:
    """A dataset that `prepare` made.

    Raises:
        InputError: its dataset.json is missing or malformed.
    """
    path = folder / "dataset.json"
    try:
        return Dataset(folder, checked(Description.model_validate, read_json(path), str(path)))
    except InputError as error:
        raise InputError(f"{error}; delete the dataset folder, it is remade") from None


def printed_names(class_names: list[str], printed: dict[str, str], key: str) -> list[str]:
    """Names of classes as the report prints them.

    Args:
        class_names: of the source; printed: another name for some of them; key: of the source in the configuration.

    Raises:
        InputError: a name cannot be printed, or is not told from another one, or `printed` names no class.
    """
    printed = {composed(name): composed(text) for name, text in printed.items()}
    if unknown := sorted(set(printed) - set(class_names)):
        known = ", ".join(class_names[:20]) + (", …" if len(class_names) > 20 else "")
        raise InputError(f"config: {key}.printed: '{unknown[0]}' is not among the classes; there are {known}")
    names = [printed.get(name, name) for name in class_names]
    for folder, name in zip(class_names, names, strict=True):
        if lacking := not_printed(name):
            raise InputError(
                f"config: {key}.printed: the class '{name}' has {lacking}, which the report's fonts lack; "
                f"{WRITE_OTHERWISE}: printed: {{{folder}: …}}"
            )
        if names.count(name) > 1:
            raise InputError(f"config: {key}.printed: two classes are printed '{name}'; give each a name of its own")
    return names


def prepare(name: str, source: dict[str, Any], validation_images: int, folder: Path, resources: Path) -> None:
    """Writes the arrays of all splits and, last, `dataset.json`.

    Args:
        name: of the dataset in the configuration; source: its entry there.
        validation_images: how many of the training images become the validation split, stratified; 0 for none.
        folder: where the arrays go; resources: where downloads go.

    Raises:
        InputError: the source is missing, altered or malformed.
    """
    key = f"datasets.{name}"
    class_names, train, test, passed_over = sources.read(key, source, resources)
    class_names = printed_names(class_names, source.get("printed", {}), key)
    images, labels = train
    if not 0 <= validation_images <= len(labels) - len(class_names):
        raise InputError(
            f"config: validation_images: {validation_images}, but '{name}' has {len(labels)} training images in "
            f"{len(class_names)} classes; choose 0 to {max(len(labels) - len(class_names), 0)}"
        )
    held_out = stratified_indices(labels, validation_images, generator(0, Purpose.VALIDATION))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    if lost := sorted(set(labels) - set(labels[kept])):
        raise InputError(
            f"config: validation_images: {validation_images}, which leaves no training image of the class "
            f"'{class_names[lost[0]]}'; choose fewer, or add images of it"
        )
    splits = {"train": (images[kept], labels[kept]), "validation": (images[held_out], labels[held_out]), "test": test}
    digests = {}
    for split, arrays in splits.items():
        for part, array in zip(("images", "labels"), arrays, strict=True):
            with atomic(folder / f"{split}-{part}.npy") as file:
                np.save(file, array)
            digests[f"{split}-{part}"] = array_digest(array)
    pixels = splits["train"][0]
    description = Description.model_validate(
        {
            "name": name,
            "source": source["source"],
            "class_names": class_names,
            "counts": {split: len(arrays[1]) for split, arrays in splits.items()},
            "shape": list(pixels.shape[1:]),
            "mean": pixels.mean(axis=(0, 2, 3)).tolist(),
            "std": pixels.std(axis=(0, 2, 3)).tolist(),
            "passed_over": passed_over,
            "sha256": digests,
        }
    )
    write_text(folder / "dataset.json", to_json(description.model_dump()))
