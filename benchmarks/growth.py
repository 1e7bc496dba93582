"""How cost grows: with seeds, variants, images and cores. Writes benchmarks/growth.json and docs/growth.svg.

`python growth.py [--quick]`. The studies are short: 20 steps of the NumPy MLP on the digits, from an empty folder to
the summary, claims, figures and numbers (no equations, no LaTeX: those cost the same whatever the study's size).
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from chart import MET, TEXT
from timing import ROOT, rounded, settings
from workflow import CORES, checkout, overlay, snakemake, timed

from cifar_report.data import datasets, sources
from cifar_report.runs.store import Request, Store
from cifar_report.study.identity import code_digest

SHORT = {"steps": 20, "evaluate_every": 10, "batch_size": 50, "evaluation_images": 100}
TARGETS = ("summary.csv", "claims.json", "figures/figures.json", "numbers.tex")


def study(variants: int, seeds: int, cores: int) -> dict[str, float]:
    """Seconds of a study: its wall, and those of the jobs of each rule."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkout(Path(scratch))
        path = overlay(folder, "growth", variants, seeds, **SHORT)
        targets = [f"results/growth/{name}" for name in TARGETS]
        start = time.perf_counter()
        snakemake(folder, "--configfile", "config/demo.yaml", path, "--cores", str(cores), "--", *targets)
        seconds = {"wall": time.perf_counter() - start}
        for file, row in timed(folder / "results/growth"):
            rule = file.parent.name if file.parent.name != "timings" else file.stem
            seconds[rule] = seconds.get(rule, 0.0) + float(row["s"])
    return {name: rounded(value) for name, value in seconds.items()}


def images(count: int) -> dict[str, float]:
    """Seconds to prepare so many images, the digits repeated, and to start, train and evaluate a short NumPy MLP."""
    read = sources.READERS["digits"]

    def repeated(*arguments):
        contents = read(*arguments)
        return contents._replace(train=tuple(np.resize(a, (count, *a.shape[1:])) for a in contents.train))

    read("", {}, Path())  # imports scikit-learn
    chosen = dataclasses.replace(settings("mlp-numpy"), train_on="train", **SHORT)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        sources.READERS["digits"] = repeated
        try:
            datasets.prepare("digits", {"source": "digits"}, 200, folder / "dataset", folder)
        finally:
            sources.READERS["digits"] = read
        middle = time.perf_counter()
        data = datasets.load(folder / "dataset")
        Store(folder / "store").obtain(Request(chosen, 0, data, code_digest(chosen.kind), "growth"))
        end = time.perf_counter()
    return {"prepare": rounded(middle - start), "train": rounded(end - middle)}


def exponents(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """The slope of log seconds against log size between the two largest sizes: above 1 grows faster than its work."""
    few, many = sorted(map(int, rows))[-2:]
    return {
        name: round(math.log(rows[str(many)][name] / rows[str(few)][name]) / math.log(many / few), 2)
        for name in rows[str(many)]
        if rows[str(few)].get(name, 0) > 0 and rows[str(many)][name] > 0
    }


def draw(found: dict[str, dict], path: Path) -> None:
    """A panel an axis of growth."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "growth", "text.color": TEXT, "font.size": 9}
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(2.6 * len(found), 2.8), layout="constrained", squeeze=False)
    for axes, (name, part) in zip(panels[0], found.items(), strict=True):
        rows = part["seconds"]
        sizes = sorted(map(int, rows))
        for series, style in (("wall", "-"), ("prepare", "--"), ("train", "-")):
            if series in rows[str(sizes[0])]:
                seconds = [rows[str(size)][series] for size in sizes]
                axes.plot(sizes, seconds, style, marker="o", color=MET, label=series)
        first = max(rows[str(sizes[-1])].get(series, 0) for series in ("wall", "prepare", "train"))
        slope = -1 if name == "cores" else 1
        ideal = [first * (size / sizes[-1]) ** slope for size in sizes]
        axes.plot(sizes, ideal, ":", color=TEXT, label="in proportion")
        axes.set(xscale="log", yscale="log", title=name)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.tick_params(colors=TEXT)
        axes.tick_params(axis="x", rotation=30)
        for spine in axes.spines.values():
            spine.set_color(TEXT)
        axes.legend(frameon=False, labelcolor=TEXT, fontsize=7)
    panels[0, 0].set_ylabel("seconds", color=TEXT)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--only", nargs="+", choices=("seeds", "variants", "images", "cores"))
    quick, only = vars(parser.parse_args()).values()
    parts = {
        "seeds": (lambda n: study(1, n, CORES), (1, 2) if quick else (1, 4, 16, 32)),
        "variants": (lambda n: study(n, 1, CORES), (1, 2) if quick else (1, 10, 100)),
        "images": (images, (1500, 3000) if quick else (1500, 6000, 60_000, 600_000)),
        "cores": (lambda n: study(2, 4, n), (1, 2) if quick or CORES < 4 else (1, 2, 4)),
    }
    found: dict[str, dict] = {}
    for name in only or parts:
        measure, sizes = parts[name]
        rows = {str(size): measure(size) for size in sizes}
        found[name] = {"seconds": rows, "exponent between the largest two": exponents(rows)}
        print(name, json.dumps(found[name]), flush=True)
    if not quick and not only:
        Path(__file__).with_name("growth.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(found, Path(tempfile.gettempdir(), "growth.svg") if quick or only else ROOT / "docs/growth.svg")


if __name__ == "__main__":
    sys.exit(main())
