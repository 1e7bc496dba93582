"""What LaTeX includes besides figures: tables by pandas' writer, and every number of the text as a named result."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cifar_report import datasets
from cifar_report.files import read_json, write_text
from cifar_report.results import Run, load_runs
from cifar_report.statistics import Interval, t_interval

TABLES = ("summary", "settings", "search", "figures", "provenance")

PLACED = ("samples", "comparison", "first-layer", "confusion", "calibration")
DATA_NOTES = {
    "digits": "This report was made from the handwritten digits that scikit-learn ships, as a demonstration of the "
    "pipeline; it says nothing about CIFAR-10.",
    "image-folder": "The images were read from an image folder; where they stem from a re-encoded copy of CIFAR-10, "
    "accuracies may differ slightly from those on the official archive.",
    "cifar10": "The images are those of the official CIFAR-10 archive.",
}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_NAMES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "mean-image": "minus mean image",
    "standardise": "standardised",
    "numpy-mlp": "MLP, NumPy",
    "torch-mlp": "MLP, PyTorch",
    "torch-vgg": "VGG, PyTorch",
}


def write(stage: dict[str, Any], results: Path) -> None:
    """Writes `numbers.tex` and `tables/<name>.tex` for each name of TABLES below a study's folder.

    Args:
        stage: {"variants", "searches", "study", "report"} of the plan.
    """
    runs = load_runs(results / "runs", stage["variants"])
    data = datasets.load(results / "dataset")
    search = pd.read_csv(results / "search.csv", dtype={"hidden": str}) if stage["searches"] else None
    claims, figures = read_json(results / "claims.json"), read_json(results / "figures" / "figures.json")
    write_text(results / "numbers.tex", numbers(stage, runs, data, search, claims, figures))
    tables = {
        "summary": summary_table(stage, runs),
        "settings": settings_table(stage, runs),
        "search": search_table(search),
        "figures": figure_list(figures),
        "provenance": provenance_table(stage, runs),
    }
    for name, text in tables.items():
        write_text(results / "tables" / f"{name}.tex", text)


def numbers(
    stage: dict[str, Any],
    runs: dict[str, list[Run]],
    data: datasets.Dataset,
    search: pd.DataFrame | None,
    claims: list[dict[str, Any]],
    figures: list[dict[str, Any]],
) -> str:
    r"""One `\setresult{key}{text}` a line, and as a comment the time that the PDF is dated with."""
    every = [run for found in runs.values() for run in found]
    commits = sorted({run.record["commit"]["hash"] or "" for run in every})
    dates = [run.record["commit"]["time"] or 0 for run in every]
    dirty = any(run.record["commit"]["dirty"] for run in every)
    results = {
        "study": escape(stage["study"]),
        "report.title": escape(stage["report"]["title"]),
        "report.author": escape(stage["report"]["author"]),
        "report.affiliation": escape(stage["report"].get("affiliation", "")),
        "data.name": escape(data.name),
        "data.note": DATA_NOTES[data.source],
        "data.classes": str(len(data.class_names)),
        "data.class-names": ", ".join(map(escape, data.class_names)),
        "data.shape": r" \times ".join(map(str, data.description["shape"])),
        "data.inputs": num(math.prod(data.description["shape"])),
        **{f"data.{split}-images": num(count) for split, count in data.counts.items()},
        "data.training-images": num(data.counts["train"] + data.counts["validation"]),
        "data.digest": ", ".join(f"{k} {v[:12]}" for k, v in data.digests().items() if k.endswith("images")),
        "data.chance": percent(1 / len(data.class_names)),
        "study.runs": num(len(every)),
        "study.variants": num(len(runs)),
        "commit": ", ".join(c[:10] for c in commits if c) or "outside a git checkout",
        "commit.note": "with changes that were not committed" if dirty else "without uncommitted changes",
    }
    if data.source == "digits":
        results["data.is-demo"] = "yes"
    for variant in stage["variants"]:
        found = runs[variant["name"]]
        results |= {f"{variant['name']}.{k}": v for k, v in _variant_numbers(variant, found).items()}
    if search is not None:
        best = search[search["selected"]].iloc[0]
        results |= {
            "search.trials": num(len(search)),
            "search.best-validation-accuracy": percent(best["validation_accuracy"]),
            "search.worst-validation-accuracy": percent(search["validation_accuracy"].min()),
        }
    for verdict in ("supported", "refuted", "inconclusive", "untested"):
        results[f"claims.{verdict}"] = num(sum(claim["verdict"] == verdict for claim in claims))
    results["claims"] = num(len(claims))
    for figure in figures:
        results[f"figures.{figure['name']}"] = escape(figure["caption"])
        sources = sorted({re.sub(r"seed-\d+", "seed-*", source) for source in figure["sources"]})
        results[f"sources.{figure['name']}"] = escape(", ".join(sources))
    lines = [f"\\setresult{{{key}}}{{{text}}}" for key, text in results.items()]
    return "\n".join([f"% SOURCE_DATE_EPOCH {max(dates, default=0)}", *lines]) + "\n"


def _variant_numbers(variant: dict[str, Any], runs: list[Run]) -> dict[str, str]:
    completed = [run for run in runs if run.completed]
    record = runs[0].record
    settings = record["settings"]
    found = {
        "label": escape(variant["label"]),
        "seeds": num(len(completed)),
        "diverged": num(len(runs) - len(completed)),
        "parameters": num(record["parameters"]),
        "steps": num(settings["steps"]),
        "batch-size": num(settings["batch_size"]),
        "learning-rate": num(settings["learning_rate"]),
        "images-seen": num(settings["steps"] * settings["batch_size"]),
        "hidden": _hidden(settings),
        "forward-flops": flops(record["forward_flops"]),
        "training-flops": flops(training_flops(record)),
        "evaluation-images": num(settings["evaluation_images"]),
    }
    for split in ("train", "validation", "test"):
        values = [run.final(split, "accuracy") for run in completed if split in run.record["final"]]
        if values:
            found[f"{split}-accuracy"] = interval(t_interval(values))
            found[f"{split}-loss"] = num(sum(run.final(split, "loss") for run in completed) / len(completed), 3)
    if completed:
        gaps = [run.final("train", "accuracy") - run.final("test", "accuracy") for run in completed]
        found["gap"] = interval(t_interval(gaps))
    if variant["original_test_accuracy"] is not None:
        found["original"] = percent(variant["original_test_accuracy"])
    return found


def summary_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """Every variant's size, effort and accuracies, in per cent."""
    rows = []
    for variant in stage["variants"]:
        found = runs[variant["name"]]
        completed = [run for run in found if run.completed]
        record = found[0].record
        test = t_interval([run.final("test", "accuracy") for run in completed])
        train = t_interval([run.final("train", "accuracy") for run in completed])
        rows.append(
            {
                "Variant": escape(variant["label"]),
                "{Parameters}": f"{record['parameters']}",
                "{Images seen}": f"{record['settings']['steps'] * record['settings']['batch_size']}",
                "{Seeds}": f"{len(completed)}"
                + (rf"\rlap{{$^{{-{n}}}$}}" if (n := len(found) - len(completed)) else ""),
                "{Training}": f"{100 * train.mean:.1f}" if completed else "{--}",
                "{Test}": _uncertain(test) if completed else "{diverged}",
                "{Original}": f"{100 * variant['original_test_accuracy']:.1f}"
                if variant["original_test_accuracy"] is not None
                else "{--}",
            }
        )
    formats = ("7.0", "7.0", "2.0", "3.1", "2.2(2)", "2.1")
    columns = "l " + " ".join(f"S[table-format={f}]" for f in formats)
    return _latex(pd.DataFrame(rows), columns)


def settings_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """What each variant was trained with."""
    rows = []
    for variant in stage["variants"]:
        s = runs[variant["name"]][0].record["settings"]
        extras = [
            f"batch norm ({s['batch_norm']})" if s["batch_norm"] != "none" else "",
            f"{s['schedule']} schedule" if s["schedule"] != "constant" else "",
            f"momentum {num(s['momentum'])}" if s["momentum"] else "",
            f"weight decay {num(s['weight_decay'])}" if s["weight_decay"] else "",
            f"label smoothing {num(s['label_smoothing'])}" if s["label_smoothing"] else "",
            f"dropout {num(s['dropout'])}" if s["dropout"] else "",
            "flips" if s["flip"] else "",
            f"shifts of {s['shift']} pixels" if s["shift"] else "",
            f"weights averaged ({num(s['average_decay'])})" if s["average_decay"] else "",
        ]
        rows.append(
            {
                "Variant": escape(variant["label"]),
                "Hidden units": _hidden(s),
                "Optimiser": _NAMES[s["optimiser"]],
                "{Rate}": f"{s['learning_rate']:g}",
                "{Steps}": str(s["steps"]),
                "{Batch}": str(s["batch_size"]),
                "Initial weights": "PyTorch's"
                if s["initial_std"] is None
                else rf"$\sigma = \num{{{s['initial_std']:g}}}$",
                "Besides": ", ".join(filter(None, extras)) or "--",
            }
        )
    return _latex(
        pd.DataFrame(rows),
        "l l l S[table-format=1.5] S[table-format=5.0] S[table-format=3.0] l >{\\raggedright\\arraybackslash}X",
        wide=True,
    )


def search_table(search: pd.DataFrame | None, best: int = 10) -> str:
    """The best configurations of each search by validation accuracy, the selected one in bold."""
    if search is None or search.empty:
        return "% The study has no search.\n"
    tables = []
    for _, trials in search.groupby("search", sort=True):
        top = trials.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True]).head(best)
        settings = [c for c in trials.columns if c not in _SEARCH_COLUMNS and trials[c].notna().any()]
        rows = []
        for _, trial in top.iterrows():
            bold = r"\bfseries " if trial["selected"] else ""
            shown = {escape(name.replace("_", " ").capitalize()): bold + _setting(trial[name]) for name in settings}
            rows.append(shown | {"{Validation}": bold + f"{100 * trial['validation_accuracy']:.1f}"})
        tables.append(_latex(pd.DataFrame(rows), "l " * len(settings) + "S[table-format=2.1, detect-weight]"))
    return "\n".join(tables)


def figure_list(figures: list[dict[str, Any]]) -> str:
    r"""A `\resultfigure` for each figure that the text does not place itself, so that a new variant appears unasked."""
    return "".join(f"\\resultfigure{{{figure['name']}}}\n" for figure in figures if figure["name"] not in PLACED)


def provenance_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """On what each variant was trained: device, versions, threads, seeds, commit."""
    rows = []
    for variant in stage["variants"]:
        records = [run.record for run in runs[variant["name"]]]
        rows.append(
            {
                "Variant": escape(variant["label"]),
                "Seeds": _ranges(record["seed"] for record in records),
                "Device": escape("; ".join(sorted({r["device"].get("gpu", r["device"]["cpu"]) for r in records}))),
                "{Threads}": "/".join(sorted({str(r["threads"]) for r in records})),
                "Versions": escape("; ".join(sorted({_versions(r) for r in records}))),
                "Commit": r"\texttt{" + ", ".join(sorted({(r["commit"]["hash"] or "none")[:7] for r in records})) + "}",
            }
        )
    return _latex(pd.DataFrame(rows), "l l l c >{\\raggedright\\arraybackslash}X l", wide=True)


def training_flops(record: dict[str, Any]) -> int:
    """Of a whole run: three forward passes' worth a step, as the backward pass costs two."""
    return 3 * record["forward_flops"] * record["samples_seen"]


def escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def num(value: float, digits: int | None = None) -> str:
    r"""A number as siunitx's \num."""
    return (
        rf"\num{{{value:.{digits}f}}}"
        if digits is not None
        else rf"\num{{{value:g}}}"
        if isinstance(value, float)
        else rf"\num{{{value}}}"
    )


def percent(fraction: float) -> str:
    """A fraction in per cent, to a tenth."""
    return rf"\qty{{{100 * fraction:.1f}}}{{\percent}}"


def interval(value: Interval) -> str:
    """A mean in per cent with the half width of its 95 % interval, where there is one."""
    return rf"\qty{{{_uncertain(value)}}}{{\percent}}"


def flops(count: float) -> str:
    """Floating-point operations with two digits."""
    return rf"\num{{{count:.1e}}}"


def _uncertain(value: Interval) -> str:
    mean = 100 * value.mean
    half = 100 * (value.high - value.low) / 2
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"


def _latex(table: pd.DataFrame, columns: str, wide: bool = False) -> str:
    text = table.to_latex(index=False, column_format=columns, escape=False)
    if wide:  # pandas knows no tabularx
        text = text.replace(r"\begin{tabular}", r"\begin{tabularx}{\textwidth}").replace(
            r"\end{tabular}", r"\end{tabularx}"
        )
    return text


_SEARCH_COLUMNS = ("trial", "validation_accuracy", "validation_loss", "status", "selected", "search")


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return escape(value.replace("-", ", ") if value[:1].isdigit() else value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hidden(settings: dict[str, Any]) -> str:
    if settings["kind"] == "torch-vgg":
        return "VGG"
    return ", ".join(map(str, settings["hidden"])) or "none"


def _versions(record: dict[str, Any]) -> str:
    names = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch"}
    return ", ".join(f"{names[k]} {v}" for k, v in record["versions"].items())


def _ranges(seeds: Iterable[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}--{ordered[-1]}"
    return ", ".join(map(str, ordered))
