"""Every number of the report's text by a key: as LaTeX prints it, and the files that it was computed from."""

import math
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cifar_report.analysis import searches
from cifar_report.analysis.ablations import worths
from cifar_report.analysis.claims.file import VERDICTS
from cifar_report.analysis.compatibility import Compatibility, joint_confidence
from cifar_report.analysis.first_loss import deviations, largest_of, root_mean_squares
from cifar_report.analysis.selection import family, main_models
from cifar_report.analysis.statistics import CALIBRATION_BINS, Interval, t_interval
from cifar_report.analysis.summary import Facts, paired_differences
from cifar_report.data import datasets
from cifar_report.rendering.claims import in_latex
from cifar_report.rendering.latex import counted, escape, num
from cifar_report.rendering.words import (
    DATA_NOTES,
    hidden_units,
    networks,
    phrases,
    setting_text,
    shortened,
    versions,
)
from cifar_report.runs.devices import guarantee
from cifar_report.runs.finished import Run
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import Settings

# {"text": as LaTeX prints it, "files": what it was computed from}, and where it is a mean "runs", the same files.
Number = dict[str, Any]


def numbers(
    stage: dict[str, Any],
    facts: dict[str, Facts],
    data: datasets.Dataset,
    search: pd.DataFrame | None,
    claims: list[dict[str, Any]],
    figures: list[dict[str, Any]],
) -> dict[str, Number]:
    """Every result that the report may print, by its key; its files are named from the study's folder."""
    runs = {name: each.runs for name, each in facts.items()}
    every = [run for members in runs.values() for run in members]
    entries = _from(_data_numbers(data), "dataset/dataset.json")
    entries |= _from(_plan_numbers(stage), "plan/stages/tables.json")
    entries |= _from(_run_numbers(every), *records_of(every))
    entries |= _from({"study.networks": networks(each.settings for each in facts.values())}, *records_of(every))
    entries |= _from(_common_numbers(stage, facts), *records_of(every))
    measured = root_mean_squares(data.split("test")[0])
    for variant in stage["variants"]:
        name = variant["name"]
        texts = _variant_numbers(variant, facts[name]) | _first_loss_numbers(facts[name], data, measured)
        if (base := stage["like"].get(name)) is not None:
            texts |= _difference_numbers(facts[name], facts[base])
        entries |= {f"{name}.{key}": number for key, number in texts.items()}
    compared = {v["name"]: facts[v["name"]].compatibility(v["original_test_accuracy"]) for v in stage["variants"]}
    if found := {name: each for name, each in compared.items() if each is not None}:
        joint = {
            "compatibility": counted(len(found), "accuracy", "accuracies"),
            "compatibility.compatible": num(sum(each.compatible for each in found.values())),
            "compatibility.joint": percent(joint_confidence(len(found))),
        }
        entries |= _from(joint, *compared_files(stage, facts))
    if noisy := sum(each.noise is not None for each in facts.values()):
        entries |= _from({"noise": num(noisy)}, *records_of(every))
    entries |= _from({"calibration.bins": num(CALIBRATION_BINS)}, "plan/stages/tables.json")
    if rows := best_pairs(stage, runs):
        entries |= _from({"best": num(len(rows))}, "plan/stages/tables.json")
    if flipped := sum(not math.isnan(each.flip_gain.mean) for each in facts.values()):
        entries |= _from({"flips": num(flipped)}, "flips.csv")
    vgg = first_vgg(runs)
    if vgg and facts[vgg].settings["batch_norm"] != "none":
        entries |= _from({"layers.batch-norm": "yes"}, *records_of(runs[vgg][:1]))
    if stage["like"]:
        entries |= _from({"differences": num(len(stage["like"]))}, "plan/stages/tables.json")
    if search is not None:
        entries |= _from(_search_numbers(search), "search.csv")
        if listed := sum(~search["search"].isin([*stage["ablations"], *stage["recipes"]])):
            entries |= _from({"search.listed": counted(listed, "trial")}, "search.csv")
        told = {key: num(len(stage[key])) for key in ("ablations", "recipes") if stage[key]}
        entries |= _from(told, "plan/stages/tables.json")
        for name, listed in stage["ablations"].items():
            entries |= _from(_ablation_numbers(name, listed["configurations"], search), "search.csv")
    entries |= _from(_claim_numbers(claims), "claims.json")
    entries |= _from(_figure_numbers(figures), "figures/figures.json")
    sources = {figure["name"]: figure["sources"] for figure in figures} | {
        "tables/summary": ["summary.csv"],
        "tables/compatibility": compared_files(stage, facts),
        "tables/splits": [*records_of(every), *logits_of(every)],
        "tables/differences": records_of(every),
        "tables/classes": logits_of([run for name in main_models(stage["main"], runs) for run in runs[name]]),
        "tables/best": records_of(
            [run for pair in best_pairs(stage, runs) for name in pair for run in runs.get(name, [])]
        ),
        "tables/flips": ["flips.csv"],
        "tables/agreement": ["agreement.csv"],
        "tables/noise": [file for each in facts.values() if each.noise for file in each.sources("noise")],
        "tables/settings": records_of([members[0] for members in runs.values()]),
        "tables/layers": records_of(runs[vgg][:1]) if vgg else [],
        "tables/search": ["search.csv"] if search is not None else [],
        "tables/ablations": ["search.csv"] if stage["ablations"] else [],
        "tables/recipes": ["search.csv"] if stage["recipes"] else [],
        "tables/search-figures": ["figures/figures.json"],
        "tables/figures": ["figures/figures.json"],
        "tables/provenance": records_of(every),
    }
    for name, files in sources.items():
        entries |= _from({f"sources.{name}": escape(shortened(files))}, *files)
    return entries


def numbers_as_latex(entries: dict[str, Number], runs: dict[str, list[Run]]) -> str:
    r"""`numbers.tex`: a `\setresult{key}{text}` a line, and as a comment the time that the PDF is dated with."""
    date = max((run.record["commit"]["time"] or 0 for members in runs.values() for run in members), default=0)
    lines = [f"\\setresult{{{key}}}{{{number['text']}}}" for key, number in entries.items()]
    return "\n".join([f"% SOURCE_DATE_EPOCH {date}", *lines]) + "\n"


def _from(texts: dict[str, str], *files: str) -> dict[str, Number]:
    """An entry for each text, computed from these files."""
    return {key: {"text": text, "files": list(files)} for key, text in texts.items()}


def _mean(texts: dict[str, str], *files: str) -> dict[str, Number]:
    """An entry for each text that is a mean over the runs with these files."""
    return {key: number | {"runs": number["files"]} for key, number in _from(texts, *files).items()}


def records_of(runs: list[Run]) -> list[str]:
    """The run.json of each run, named from the study's folder."""
    return [run.source("run.json") for run in runs]


def compared_files(stage: dict[str, Any], facts: dict[str, Facts]) -> list[str]:
    """What the comparison with printed accuracies was computed from."""
    compared = [facts[v["name"]] for v in stage["variants"] if v["original_test_accuracy"] is not None]
    measured = any(each.is_measured_as_the_original for each in compared)
    return records_of([run for each in compared for run in each.runs]) + ["batch-statistics.csv"] * measured


def logits_of(runs: list[Run]) -> list[str]:
    """The test logits of each completed run, named from the study's folder."""
    return [run.source("test-logits.npy") for run in runs if run.completed]


def _plan_numbers(stage: dict[str, Any]) -> dict[str, str]:
    report = stage["report"]
    texts = {
        "study": escape(stage["study"]),
        "study.variants": counted(len(stage["variants"]), "variant"),
        "report.title": escape(report["title"]),
    }
    texts |= {f"report.{key}": escape(report[key]) for key in ("author", "affiliation") if report.get(key)}
    if stage["reproduces"]:
        texts["practical"] = "yes"
    if copy := report.get("copy"):
        texts["data.copy"] = f"Ours are of {escape(copy)}."
        texts["data.note"] = (
            f"The images are {escape(copy)}; accuracies on the original files may differ by an unknown amount."
        )
    if originals := sum(v["original_test_accuracy"] is not None for v in stage["variants"]):
        texts["study.originals"] = num(originals)
    if pairs := stage.get("agreement"):
        texts["agreement"] = num(pairs)
    return texts


def _data_numbers(data: datasets.Dataset) -> dict[str, str]:
    held_out = data.counts["validation"]
    return {
        "data.name": escape(data.name),
        "data.note": DATA_NOTES[data.source],
        "data.classes": num(len(data.class_names)),
        "data.class-names": ("; " if "," in "".join(data.class_names) else ", ").join(map(escape, data.class_names)),
        "data.shape": r" \times ".join(map(str, data.description["shape"])),
        "data.inputs": num(math.prod(data.shape)),
        "data.pixels": rf"{data.shape[1]} \times {data.shape[2]}",
        "data.colours": "grey" if data.shape[0] == 1 else "colour",
        **{f"data.{split}-images": num(count) for split, count in data.counts.items()},
        **({"data.held-out": num(held_out)} if held_out else {}),
        "data.training-images": num(data.counts["train"] + data.counts["validation"]),
        "data.digest": ", ".join(f"{k} {v[:12]}" for k, v in data.digests().items() if k.endswith("images")),
        "data.chance": percent(np.bincount(data.split("test")[1]).max() / data.counts["test"]),
    }


def _run_numbers(runs: list[Run]) -> dict[str, str]:
    commits = {run.record["commit"]["hash"]: run.record["commit"]["time"] or 0 for run in runs}
    ordered = [
        rf"\texttt{{{name[:7]}}}" for name in sorted(filter(None, commits), key=lambda name: (commits[name], name))
    ]
    earlier = f" and {len(ordered) - 1} earlier" if len(ordered) > 1 else ""
    dirty = any(run.record["commit"]["dirty"] for run in runs)
    texts = {
        "study.runs": counted(len(runs), "run"),
        "commit": f"commit{'s' * (len(ordered) > 1)} {', '.join(ordered) or 'none'}",
        "commit.short": (ordered or ["none"])[-1] + earlier,
        "commit.note": "with changes that were not committed" if dirty else "without uncommitted changes",
    }
    kinds = [KINDS[run.record["settings"]["kind"]] for run in runs]
    texts |= {f"runs.{name}": num(count) for name, count in sorted(Counter(k.family for k in kinds).items())}
    texts |= {f"runs.{name}": num(count) for name, count in sorted(Counter(k.backend for k in kinds).items())}
    if len(origins := {origin(run) for run in runs}) == 1:
        device, versions_of, again = map(escape, origins.pop())
        texts["provenance"] = f"All were trained on {device} ({versions_of}), and give the {again} again."
    else:
        texts["provenance.differs"] = num(len(origins))
    if diverged := sum(not run.completed for run in runs):
        texts["study.diverged"] = num(diverged)
    return texts


def _common_numbers(stage: dict[str, Any], facts: dict[str, Facts]) -> dict[str, str]:
    """What all variants have in common, how many seeds each has, and between which accuracies they lie."""
    texts = {f"settings.{name.replace('_', '-')}": text for name, text in common(facts).items()}
    seeds = sorted({len(each.runs) for each in facts.values()})
    texts["study.seeds"] = f"{num(seeds[0])} to " * (len(seeds) > 1) + counted(seeds[-1], "seed")
    if seeds[-1] > 1:
        texts["study.several"] = "yes"
    accuracies = [
        (each.accuracy["test"], f"``{escape(variant['label'])}''")
        for variant in stage["variants"]
        if (each := facts[variant["name"]]).seeds
    ]
    ordered = sorted(accuracies, key=lambda entry: entry[0].mean)
    if len(ordered) == 1:
        ((accuracy, label),) = ordered
        texts["study.accuracies"] = f"Of the test images, {label} classifies {interval(accuracy)} correctly."
    elif ordered:
        (low, lowest), (high, highest) = ordered[0], ordered[-1]
        texts["study.accuracies"] = (
            f"Mean test accuracies go from {interval(low)} ({lowest}) to {interval(high)} ({highest})."
        )
    return texts


def common(facts: dict[str, Facts]) -> dict[str, str]:
    """Of slope and images to train on, those in words that all variants that have them share."""
    said = [phrases(each.settings) for each in facts.values()]
    alike = {name: {words[name] for words in said} - {""} for name in ("slope", "train_on")}
    return {name: texts.pop() for name, texts in alike.items() if len(texts) == 1}


def origin(run: Run) -> tuple[str, str, str]:
    """On what a run was trained, with which versions and threads, and what training it again gives."""
    record = run.record
    threads = f"{record['threads']} thread" + "s" * (record["threads"] > 1)
    again = guarantee(record["settings"], record["device"])
    return record["device"].get("gpu", record["device"]["cpu"]), f"{threads}, {versions(record)}", again


def _variant_numbers(variant: dict[str, Any], facts: Facts) -> dict[str, Number]:
    settings = facts.settings
    planned = {"label": escape(variant["label"])}
    if variant["original_test_accuracy"] is not None:
        planned["original"] = percent(variant["original_test_accuracy"])
    counts = {"seeds": num(facts.seeds), "diverged": num(facts.diverged)}
    size = {
        "parameters": num(facts.parameters),
        "steps": num(settings["steps"]),
        "batch-size": num(settings["batch_size"]),
        "learning-rate": num(settings["learning_rate"]),
        "images-seen": num(facts.images_seen),
        "hidden": hidden_units(settings),
        "forward-flops": flops(facts.forward_flops),
        "training-flops": flops(facts.training_flops),
        "evaluation-images": num(settings["evaluation_images"]),
    }
    means = {}
    for split, accuracy in facts.accuracy.items():
        if not math.isnan(accuracy.mean):
            means[f"{split}-accuracy"] = interval(accuracy)
            means[f"{split}-loss"] = num(facts.loss[split].mean, 3)
    if facts.seeds:
        means["gap"] = interval_in_points(facts.gap)
        means["test-accuracy-binomial"] = fine_percent(facts.test_accuracy_binomial)
    if facts.seeds > 1:
        means["test-accuracy-std"] = f"{num(100 * facts.test_accuracy_std, 2)} percentage points"
    entries = (
        _from(planned, "plan/stages/tables.json")
        | _from(counts, *facts.sources("seeds"))
        | _from(size, *facts.sources("settings"))
        | _mean(means, *facts.sources("accuracy"))
    )
    original, as_original = variant["original_test_accuracy"], "accuracy"
    if facts.is_measured_as_the_original:
        as_original = "batch_statistics_accuracy"
        texts = _compatibility_numbers(facts.compatibility(original, evaluated=True), "-evaluated")
        entries |= _from(texts, *facts.sources("accuracy"))
    entries |= _from(_compatibility_numbers(facts.compatibility(original)), *facts.sources(as_original))
    if facts.seeds:
        error = {"ece": percent(facts.calibration_error.mean)}
        entries |= _from(error, *facts.sources("calibration_error"))
    if not math.isnan(facts.flip_gain.mean):
        flips = {
            "test-accuracy-flipped": interval(facts.flipped_accuracy),
            "flip-gain": interval_in_points(facts.flip_gain),
        }
        entries |= _from(flips, *facts.sources("flip_gain"))
    return entries | _measured_numbers(facts)


def _measured_numbers(facts: Facts) -> dict[str, Number]:
    """By batch statistics, and of the noise, where they are there."""
    entries: dict[str, Number] = {}
    if not math.isnan(facts.batch_statistics_accuracy.mean):
        low, high = facts.batch_statistics_prediction[1:]
        measured = facts.measured_by_batch_statistics.iloc[0]
        texts = {
            "batch-statistics-accuracy": interval(facts.batch_statistics_accuracy),
            "batch-statistics-difference": interval_in_points(facts.batch_statistics_difference),
            "batch-statistics-batch": num(int(min(measured["batch_size"], measured["images"]))),
        }
        if measured["last_batch"] < min(measured["batch_size"], measured["images"]):
            texts["batch-statistics-last-batch"] = num(int(measured["last_batch"]))
        if not math.isnan(low):
            texts |= {
                "batch-statistics-prediction-low": percent(low),
                "batch-statistics-prediction-high": percent(high),
            }
        entries |= _from(texts, *facts.sources("batch_statistics_accuracy"))
    if facts.noise:
        texts = {
            "noise-from": num(facts.noise.steps[0]),
            "noise-to": num(facts.noise.steps[-1]),
            "noise-images": num(facts.noise.images),
        }
        for name in ("along", "between"):
            limits = zip(("", "-low", "-high"), getattr(facts.noise, name), strict=True)
            texts |= {f"noise-{name}{end}": num(100 * limit, 2) for end, limit in limits}
        entries |= _from(texts, *facts.sources("noise"))
    if len(facts.last_spreads) and not math.isnan(facts.last_spreads[0]):
        texts = {"last-spread": num(100 * facts.last_spreads.mean(), 1)}
        texts["last-spread-largest"] = num(100 * facts.last_spreads.max(), 1)
        entries |= _from(texts, *facts.sources("last_spreads"))
    return entries


def _compatibility_numbers(found: Compatibility | None, end: str = "") -> dict[str, str]:
    if found is None:
        return {}
    low, high = (f"{100 * limit:.1f}" for limit in (found.prediction.low, found.prediction.high))
    texts = {
        "prediction": rf"\num{{{low}}} to \qty{{{high}}}{{\percent}}",
        "prediction-low": percent(found.prediction.low),
        "prediction-high": percent(found.prediction.high),
        "prediction-half": num(100 * found.prediction.half, 1),
        "compatible": "compatible" if found.compatible else "incompatible",
        "detectable": num(100 * found.detectable, 1),
        "p": num(found.p, 3),
        "next-reaches": percent(found.next_reaches),
        "reached": num(found.reached),
    }
    return {key + end: text for key, text in texts.items()}


def _first_loss_numbers(
    facts: Facts, data: datasets.Dataset, root_mean_squares: Float[np.ndarray, " n"]
) -> dict[str, Number]:
    """The first loss; and of an MLP of PyTorch's initial weights with one hidden layer, the one that is due."""
    if math.isnan(facts.first_loss.mean):
        return {}
    entries = _from({"first-loss": num(facts.first_loss.mean, 1)}, *facts.sources("first_loss"))
    settings = Settings.from_mapping(facts.settings)
    if settings.initial_std is not None:
        entries |= _from({"initial-deviation": rf"\num{{{settings.initial_std:g}}}"}, *facts.sources("settings"))
    plain = settings.initial_std is None and settings.batch_norm == "none" and settings.preprocessing == "mean-image"
    if family(facts.runs) != "mlp" or len(settings.hidden) != 1 or not plain:
        return entries
    classes, pixels = len(data.class_names), math.prod(data.description["shape"])
    deviation = deviations(root_mean_squares, pixels, settings.hidden[0], settings.slope).mean()
    texts = {
        "pixel-deviation": num(root_mean_squares.mean(), 1),
        "logit-deviation": num(deviation, 1),
        "largest-logit": num(largest_of(classes), 2),
        "due-loss": num(deviation * largest_of(classes), 1),
        "uniform-loss": num(math.log(classes), 1),
    }
    return entries | _from(texts, "dataset/test-images.npy")


def _difference_numbers(facts: Facts, base: Facts) -> dict[str, Number]:
    differences = paired_differences(facts, base)
    if not len(differences):
        return {}
    return _from(
        {"difference": interval_in_points(t_interval(differences))}, *records_of(facts.runs), *records_of(base.runs)
    )


def _search_numbers(search: pd.DataFrame) -> dict[str, str]:
    texts = {"search.trials": num(len(search))}
    for name, trials in search.groupby("search", sort=True):
        first = searches.configurations(trials[trials["rung"] == 1])
        of_search = {
            "trials": num(len(trials)),
            "configurations": num(len(first)),
            "rungs": num(int(trials["rung"].max())),
            "first-steps": num(int(first["step"].max())),
            "worst-validation-accuracy": percent(first["validation_accuracy"].min()),
            "seeds": num(trials["seed"].nunique()),
        }
        worst = first.sort_values("validation_accuracy")[:2]
        if len(first) > 2 and worst["validation_accuracy"].notna().all():
            told = [
                f"{_configuration(row, trials)} ({percent(row['validation_accuracy'])})" for _, row in worst.iterrows()
            ]
            of_search["worst"] = " and ".join(told)
        if trials["rung"].max() == 1 and (bias := searches.selection_bias(trials)):
            of_search |= {
                "selection-bias": points(bias.mean),
                "selection-bias-low": num(100 * bias.low, 1),
                "selection-bias-high": points(bias.high),
            }
        texts |= {f"search.{name}.{key}": text for key, text in of_search.items()}
    return texts


def _ablation_numbers(name: str, configurations: list[str], search: pd.DataFrame) -> dict[str, str]:
    """What each ingredient is worth, with its simultaneous limits, where no seed diverged."""
    each = worths(search[search["search"] == name].reset_index(drop=True), configurations)
    return {
        f"ablations.{name}.{found.name}": interval_in_points(found.worth)
        for found in each
        if math.isfinite(found.worth.mean)
    }


def _configuration(row: pd.Series, trials: pd.DataFrame) -> str:
    """A configuration of a search, its settings one by one."""
    return "; ".join(f"{escape(s.replace('_', ' '))} {setting_text(row[s])}" for s in searches.settings(trials))


def _claim_numbers(claims: list[dict[str, Any]]) -> dict[str, str]:
    """Verdicts and their counts, and the estimate of each part with its interval; nothing where there are none."""
    if not claims:
        return {}
    verdicts = [claim["verdict"] for claim in claims]
    texts = {
        "claims": counted(len(claims), "claim"),
        **{f"claims.{name}": num(verdicts.count(name)) for name in VERDICTS},
    }
    texts["claims.sampled"] = num(sum(claim["sampled"] and claim["verdict"] != "untested" for claim in claims))
    if changed := sum(claim["changed"] is not None for claim in claims):
        texts["claims.changed"] = num(changed)
    for claim in claims:
        texts[f"claims.{claim['id']}.verdict"] = claim["verdict"]
        for part in claim["parts"]:
            if part["estimate"] is not None:
                texts[f"claims.{claim['id']}.{part['id']}"] = in_latex(part)
    return texts


def _figure_numbers(figures: list[dict[str, Any]]) -> dict[str, str]:
    r"""What `\resultfigure` prints of each figure: its caption and alternative text."""
    texts = {}
    for figure in figures:
        name = figure["name"]
        facts = "; ".join(f"{key.replace('-', ' ')}: {value}" for key, value in figure["facts"].items())
        caption = escape(figure["caption"]).replace(r" \%", r"\,\%")
        texts[f"figures.{name}"] = re.sub(r"(?<![\w.])-(?=\d)", "$-$", caption)
        texts[f"alternative.{name}"] = escape(f"{figure['title']}. {facts}".strip())
    return texts


def best_pairs(stage: dict[str, Any], variants: Collection[str]) -> list[tuple[str, str]]:
    """Each variant of the study that goes beyond another, behind that other: (reproduced, best) of `report.best`."""
    best = stage["report"].get("best", {})
    return [(reproduced, name) for reproduced, names in best.items() for name in names if name in variants]


def first_vgg(runs: dict[str, list[Run]]) -> str | None:
    """The study's first variant of the VGG's family; None without one."""
    return next((name for name, members in runs.items() if family(members) == "vgg"), None)


def percent(fraction: float) -> str:
    """A fraction in per cent, to a tenth."""
    return rf"\qty{{{100 * fraction:.1f}}}{{\percent}}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, to a tenth."""
    return f"{num(100 * fraction, 1)} percentage points"


def fine_percent(fraction: float) -> str:
    """A fraction in per cent, to a hundredth."""
    return rf"\qty{{{100 * fraction:.2f}}}{{\percent}}"


def interval(value: Interval) -> str:
    """A mean in per cent with the half width of its 95 % interval, where there is one."""
    return rf"\qty{{{_uncertain(value)}}}{{\percent}}"


def interval_in_points(value: Interval) -> str:
    """A mean difference in percentage points, likewise."""
    return rf"\num{{{_uncertain(value)}}} percentage points"


def flops(count: float) -> str:
    """A count of floating-point operations, to two digits."""
    return rf"\num{{{count:.1e}}}"


def _uncertain(value: Interval) -> str:
    """A mean with its half width, as siunitx reads it."""
    mean = 100 * value.mean
    half = 100 * value.half
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"
