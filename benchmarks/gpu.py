"""What a GPU makes of the study, beside the plain PyTorch loop: run by benchmarks/gpu.sh, which says how."""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from cifar_report.analysis.statistics import t_interval
from cifar_report.base.files import read_json, to_json, write_text
from cifar_report.data import datasets
from cifar_report.models.torch_nn import mlp, vgg
from cifar_report.runs import exchange, machine
from cifar_report.runs.store import Request, Store
from cifar_report.study import config as studies
from cifar_report.study import identity
from cifar_report.study.settings import Settings
from cifar_report.training.batches import statistics
from cifar_report.training.loop import Trainer, build_trainer
from cifar_report.training.splits import Split

ROOT = Path(__file__).parents[1]
MLP_SECONDS, STUDY_SECONDS = 5, 600
# Variant: seconds of training and evaluations at most, times the plain loop at least, mean test accuracy at least.
VGG_GOALS = {"vgg": (6, 4, None), "vgg-best": (20, None, 0.92), "vgg-record": (8, None, 0.93)}


def main() -> None:
    """Runs all checks and writes their results into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=Path, help="a copy of the JPEG images as a tar; without it the digits")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="train these alone")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.quick:
        parser.error("PyTorch sees no GPU; --quick tries the script on a CPU")
    begun = time.perf_counter()
    output: Path = options.output.resolve()
    study, data = _study(options.images), _dataset(options.images, output / "dataset")
    results: list[dict] = []

    def note(name: str, value: float, goal: float | None = None, peer: float | None = None, above=False) -> None:
        met = None if goal is None else bool(value >= goal if above else value <= goal)
        results.append({"name": name, "value": value, "peer": peer, "goal": goal, "met": met})
        print(f"{name}: {value:.4g}" + (f" (goal {goal:g}, plain {peer})" if goal is not None else ""), flush=True)
        write_text(output / "gpu.json", to_json(results))

    base = _settings(study, "vgg", options.quick)
    _plain_against_ours(base, data, note, output)
    _determinism(base, data, note)
    wanted = options.variants or study.variants
    for precision in ("tf32", "bf16") if "vgg" in wanted else ():
        runs = _runs(dataclasses.replace(base, precision=precision), 1 if options.quick else 3, data, output / "store")
        note(f"vgg {precision}: test accuracy", _accuracy(runs).mean)
    for name, variant in study.variants.items():
        if variant.settings["kind"] == "numpy-mlp" or variant.search or name not in wanted:
            continue
        settings = _settings(study, name, options.quick)
        seeds = 5 if name not in ("vgg", "vgg-no-bn", "vgg-long", "vgg-160k") else 3
        runs = _runs(settings, 1 if options.quick else seeds, data, output / "store")
        slowest = max(run["seconds"] + run["evaluation_seconds"] for run in runs)
        limit, _, accuracy = VGG_GOALS.get(name, (None, None, None))
        limit = MLP_SECONDS if settings.kind == "torch-mlp" else limit
        note(f"{name}: seconds of the slowest run, evaluations included", slowest, limit)
        interval = _accuracy(runs)
        half = (interval.high - interval.low) / 2
        note(f"{name}: test accuracy, mean of {len(runs)} (interval ±{half:.4f})", interval.mean, accuracy, above=True)
    note("all of this: seconds, start-up not included", time.perf_counter() - begun, STUDY_SECONDS)
    exchange.write({run.parent.name for run in output.glob("store/*/finished")}, output / "store", output / "runs.tar")
    _write_table(results, output / "table.md")


def _study(images: Path | None) -> studies.Study:
    """The full study's variants in bf16, whatever `run` of an overlay leaves out."""
    config, overlay = (yaml.safe_load((ROOT / name).read_text()) for name in ("config.yaml", "config/bf16.yaml"))
    for name, changes in overlay["variants"].items():
        config["variants"][name] |= changes
    digits = {"dataset": "digits", "validation_images": 200, "report": {"title": "The networks on the digits"}}
    config |= {"dataset": "cifar10-jpeg"} if images else digits
    return studies.load(config)


def _dataset(images: Path | None, folder: Path) -> datasets.Dataset:
    if not (folder / "dataset.json").is_file():
        source = {"source": "image-folder", "path": str(images.resolve())} if images else {"source": "digits"}
        datasets.prepare("cifar10-jpeg" if images else "digits", source, 5000 if images else 200, folder, folder)
    return datasets.load(folder)


def _settings(study: studies.Study, name: str, quick: bool) -> Settings:
    settings = study.variants[name].resolved()
    if not quick:
        return settings
    return dataclasses.replace(settings, steps=4, batch_size=8, evaluate_every=2, evaluation_images=50)


def _runs(settings: Settings, seeds: int, data: datasets.Dataset, folder: Path) -> list[dict]:
    """The records of finished runs, trained one after the other in this process."""
    code, store = identity.code_digest(settings.kind), Store(folder)
    found = [store.obtain(Request(settings, seed, data, code, settings.kind)) for seed in range(seeds)]
    return [read_json(run / "run.json") for run in found]


def _accuracy(runs: list[dict]):
    return t_interval(np.array([run["final"]["test"]["accuracy"] for run in runs]))


def _seconds(work: Callable[[], None], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        found.append(time.perf_counter() - start)
    return found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _trainer(settings: Settings, data: datasets.Dataset) -> Trainer:
    return build_trainer(settings, Split(*data.split("train")), len(data.class_names), seed=0)


def _plain_loop(settings: Settings, data: datasets.Dataset) -> Iterator[None]:
    """Training as a tutorial writes it, on tensors that lie on the device; a step an item."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = (torch.from_numpy(array) for array in data.split("train"))
    mean, std = statistics(images.numpy(), settings.preprocessing)
    x = ((images - torch.from_numpy(mean)) / torch.from_numpy(std)).to(device)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, labels.to(device)), settings.batch_size, shuffle=True, drop_last=True
    )
    build = {"torch-mlp": mlp.build, "torch-vgg": vgg.build}[settings.kind]
    model = build(settings, images.shape[1:], len(data.class_names), 0).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    while True:
        for batch, targets in loader:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), targets)
            loss.backward()
            optimiser.step()
            loss.item()  # a tutorial adds up its losses
            yield


def _plain_against_ours(settings: Settings, data: datasets.Dataset, note: Callable, output: Path) -> None:
    """Seconds a step of the two loops in turns, and a profile of each."""
    plain, trainer = _plain_loop(settings, data), _trainer(settings, data)
    steps = min(200, settings.steps)

    def run_plain() -> None:
        for _ in range(steps):
            next(plain)

    def run_ours() -> None:
        trainer.advance(trainer.step + steps)

    run_plain(), run_ours()  # set-up and recording
    pairs = [(_seconds(run_plain, 1)[0], _seconds(run_ours, 1)[0]) for _ in range(5)]
    ratios = [theirs / ours for theirs, ours in pairs]
    theirs, ours = (float(np.median(column)) / steps * 1e3 for column in zip(*pairs, strict=True))
    note("vgg: milliseconds a step", ours, peer=theirs)
    note("vgg: times the plain loop's speed, median of 5", float(np.median(ratios)), VGG_GOALS["vgg"][1], above=True)
    for name, work in (("before", run_plain), ("after", run_ours)):
        with torch.profiler.profile() as profile:
            work()
            _wait()
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        write_text(output / f"profile-{name}.txt", profile.key_averages().table(sort_by=key, row_limit=25) + "\n")


def _determinism(settings: Settings, data: datasets.Dataset, note: Callable) -> None:
    """Whether two deterministic trainings end with the same bits, and what that costs."""
    steps = min(200, settings.steps)
    weights, seconds = {}, {}
    for deterministic in (False, True):
        for turn in range(2):
            trainer = _trainer(dataclasses.replace(settings, deterministic=deterministic), data)
            trainer.advance(steps)
            seconds[deterministic] = min(_seconds(lambda t=trainer: t.advance(t.step + steps), 3))
            weights[deterministic, turn] = b"".join(array.tobytes() for array in trainer.parameters().values())
    note("deterministic: twice the same bits (1 yes)", float(weights[True, 0] == weights[True, 1]), 1, above=True)
    note("not deterministic: twice the same bits (1 yes)", float(weights[False, 0] == weights[False, 1]))
    note("deterministic: times the seconds", seconds[True] / seconds[False])


def _write_table(results: list[dict], path: Path) -> None:
    lines = ["| what | value | plain loop | goal | met |", "|---|---|---|---|---|"]
    for row in results:
        cells = ["" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "peer", "goal")]
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {met} |")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else machine.cpu_name()
    write_text(path, "\n".join([f"{device}, PyTorch {torch.__version__}", "", *lines]) + "\n")


if __name__ == "__main__":
    main()
