"""How the report puts into words, as LaTeX, what settings, recipes, versions, seeds and files are."""

import os
import re
from collections.abc import Iterable
from typing import Any

from cifar_report.rendering.latex import counted, escape, num
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import NEUTRAL

DATA_NOTES = {
    "digits": "This report was made from the handwritten digits that scikit-learn ships, as a demonstration of the "
    "pipeline.",
    "image-folder": "The images were read from image files; where these were encoded anew, as JPEG for instance, "
    "accuracies may differ slightly from those on the images as they were.",
    "cifar10": "The images are those of the official CIFAR-10 archive.",
}
OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
# Settings that say nothing of a recipe.
_APART = ("evaluate_every", "evaluation_images", "threads", "deterministic")


def phrases(settings: dict[str, Any]) -> dict[str, str]:
    """Each setting of a recipe in words; empty where it is switched off."""
    s = NEUTRAL | settings
    kind = KINDS[s["kind"]]
    known = {
        "kind": kind.words,
        "hidden": f"hidden units {hidden_units(s)}" if kind.family == "mlp" else "",
        "slope": f"slope {num(s['slope'])}" if kind.family == "mlp" else "",
        "train_on": "trained on training and validation images"
        if s["train_on"] == "train+validation"
        else "trained on training images",
        "initial_std": "PyTorch's initial weights"
        if s["initial_std"] is None
        else rf"initial weights of $\varsigma = \num{{{s['initial_std']:g}}}$",
        "dirac": "convolutions that begin as the identity" if s["dirac"] else "",
        "steps": f"{num(s['steps'])} steps",
        "batch_size": f"batches of {num(s['batch_size'])}",
        "optimiser": OPTIMISERS[s["optimiser"]],
        "momentum": f"{'Nesterov ' if s['nesterov'] else ''}momentum {num(s['momentum'])}" if s["momentum"] else "",
        "nesterov": "",
        "learning_rate": f"learning rate {num(s['learning_rate'])}",
        "schedule": f"{s['schedule']} schedule" if s["schedule"] != "constant" else "",
        "warmup": f"warm-up {num(s['warmup'])}" if s["warmup"] else "",
        "batch_norm": f"batch norm ({s['batch_norm']})" if s["batch_norm"] != "none" else "",
        "bias_rate": f"batch norm's biases at {num(s['bias_rate'])} times the rate" if s["bias_rate"] != 1 else "",
        "weight_decay": f"weight decay {num(s['weight_decay'])}" if s["weight_decay"] else "",
        "label_smoothing": f"label smoothing {num(s['label_smoothing'])}" if s["label_smoothing"] else "",
        "dropout": f"dropout {num(s['dropout'])}" if s["dropout"] else "",
        "flip": ("alternating flips" if s["alternate_flips"] else "flips") if s["flip"] else "",
        "alternate_flips": "",
        "shift": f"shifts of {counted(s['shift'], 'pixel')}" if s["shift"] else "",
        "average_decay": f"weights averaged ({num(s['average_decay'])})" if s["average_decay"] else "",
        "preprocessing": "standardised channels" if s["preprocessing"] == "standardise" else "",
        "precision": s["precision"] if s["precision"] != "float32" else "",
    }
    others = {name: value for name, value in s.items() if name not in known and name not in _APART}
    return known | {
        name: escape(f"{name.replace('_', ' ')} {value}") if value != NEUTRAL.get(name) else ""
        for name, value in others.items()
    }


def changes(settings: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """The settings in which a recipe differs from another, in words."""
    here, there = phrases(settings), phrases(base)
    both = {name: (here.get(name, ""), there.get(name, "")) for name in here | there}
    return [ours or f"no {theirs}" for ours, theirs in both.values() if ours != theirs]


def networks(recipes: Iterable[dict[str, Any]]) -> str:
    """Which networks a study trains, by their settings, in the order of the report's chapters."""
    settings = [NEUTRAL | recipe for recipe in recipes]
    kinds = {s["kind"] for s in settings}
    mlp = "a multilayer perceptron"
    said = {
        "numpy-mlp": f"{mlp} whose back-propagation is written by hand in NumPy",
        "torch-mlp": f"{'the same network' if 'numpy-mlp' in kinds else mlp} in PyTorch",
        "batch-norm": "batch normalisation",
        "torch-vgg": "a convolutional network after VGG",
    }
    if any(KINDS[s["kind"]].family == "mlp" and s["batch_norm"] != "none" for s in settings):
        kinds.add("batch-norm")
    listed = [words for name, words in said.items() if name in kinds]
    listed += [KINDS[name].words for name in sorted(kinds - set(said))]
    return " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))


def hidden_units(settings: dict[str, Any]) -> str:
    """The widths of an MLP's hidden layers; of another network, which has none of that kind, what it is."""
    kind = KINDS[settings["kind"]]
    return (", ".join(map(str, settings["hidden"])) or "none") if kind.family == "mlp" else kind.words


def setting_text(text: str) -> str:
    """A value of search.csv, as a cell of a table: 500, 500 for 500-500, 0.002 for 0.0020."""
    try:
        return text if text.isdigit() else f"{float(text):g}"
    except ValueError:
        return escape(text.replace("-", ", ") if text[:1].isdigit() else text)


def setting_change(name: str, text: str) -> str:
    """A setting with its value of search.csv, in words: shift 2, no dirac."""
    words = escape(name.replace("_", " "))
    return {"True": words, "False": f"no {words}"}.get(text, f"{words} {setting_text(text)}")


def versions(record: dict[str, Any]) -> str:
    """The libraries that a run was trained with, and their versions."""
    names = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch"}
    return ", ".join(f"{names[k]} {v}" for k, v in record["versions"].items())


def ranges(seeds: Iterable[int]) -> str:
    """Seeds in order, three or more consecutive ones as a range."""
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}--{ordered[-1]}"
    return ", ".join(map(str, ordered))


def shortened(files: Iterable[str]) -> str:
    """Paths as few words: those that differ in one part are joined, two in braces and more with a star.

    A star may stand for fewer files than there are; `numbers.json` has them all.
    """
    paths = [tuple(file.split("/")) for file in sorted(set(files))]
    for part in reversed(range(max(map(len, paths), default=0))):
        alike: dict[tuple, list[str]] = {}
        for path in paths:
            here = path[part : part + 1]
            alike.setdefault((path[:part], path[part + 1 :], bool(here)), []).extend(here)
        paths = [
            (*before, _joined(names), *after) if present else (*before, *after)
            for (before, after, present), names in alike.items()
        ]
    return ", ".join(map("/".join, paths))


def _joined(names: list[str]) -> str:
    """One part of several paths: the name, two names in braces, or what more have in common around a star."""
    if len(names) <= 2:
        return names[0] if len(names) == 1 else f"{{{','.join(names)}}}"
    start = re.sub(r"\w*$", "", os.path.commonprefix(names))  # noqa: RUF071 (characters, not folders)
    endings = [name[len(start) :][::-1] for name in names]
    end = re.sub(r"\w*$", "", os.path.commonprefix(endings))[::-1]  # noqa: RUF071
    return f"{start}*{end}"
