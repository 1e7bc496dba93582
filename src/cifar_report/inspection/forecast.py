"""How long a study will take on so many cores, from what earlier runs took.

The pace of a run, seconds an image that it trains on and an image that it is evaluated on, is that of the earlier runs
nearest to it in settings and machine, and goes with the floating-point operations of an image. Runs in the store cost
their publication alone. `load_run` is not used here: a dry run prints the forecast, and has no time for pandas.
"""

import csv
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.data import datasets
from cifar_report.runs import machine
from cifar_report.study import plan
from cifar_report.study.config import TRAINING_IMAGES, Settings
from cifar_report.study.identity import run_identity

# Seconds of a job besides its run: interpreter, imports, data and Snakemake. Measured on two cores of an AMD EPYC.
START_UP = {"numpy": 1.5, "torch": 6.0}
PUBLICATION = 1.5  # of a job whose run another one has trained
FEW = 3  # at least so many earlier runs make a range, where there are so many of the kind
SLACK = 0.5  # of `_distance`: so much further is as near
MOST = 500  # runs of the store that are read, the newest
SHORT_RUN = (
    60.0  # seconds: shorter ones share a process, as of training.store, whose import costs more than this module
)
DATA, STAGES = "data", "analysis and report"  # rows of jobs that are no runs
SHAPE, CLASSES, TEST_IMAGES = (3, 32, 32), 10, 10_000  # where the data are not prepared yet
SHAPES = {"digits": (1, 32, 32)}  # of sources that are known beforehand and have others

# Settings that change what an image costs, besides hidden and batch_size, which count by their ratio.
COSTLY = ("precision", "batch_norm", "optimiser", "flip", "shift", "dropout", "average_decay", "momentum", "threads")


class Seconds(NamedTuple):
    """What is likely, and a range: from the fastest to the slowest of the earlier runs. NaN where nothing is known."""

    likely: float
    low: float
    high: float


UNKNOWN = Seconds(math.nan, math.nan, math.nan)


def total(parts: Iterable[Seconds]) -> Seconds:
    """The sum; what is unknown counts as nothing."""
    known = [part for part in parts if not math.isnan(part.likely)]
    return Seconds(*(math.fsum(part[i] for part in known) for i in range(3)))


@dataclass(frozen=True)
class Task:
    """A job to come."""

    name: str  # as of its log and its timing
    row: str  # its variant or search, or what it is for
    seconds: Seconds
    basis: str = ""  # the earlier runs that tell
    run: str = ""  # the run that it trains, as its log names it
    kind: str = ""  # of its model
    finished: bool = False  # its run is in the store
    threads: int = 1
    gpu: bool = False
    after: frozenset[str] = frozenset()  # rows that must have ended


@dataclass
class Benchmark:
    """Earlier runs of the same settings on the same device: seconds an image, of training and of evaluation."""

    settings: Settings
    device: str  # cpu or cuda
    processor: str
    flops: int  # of one image's forward pass
    train: list[float] = field(default_factory=list)
    evaluate: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Data:
    """What the time of a run depends on in its data set; digests are empty where it is not prepared yet."""

    counts: dict[str, int]
    shape: tuple[int, ...] = SHAPE
    classes: int = CLASSES
    digests: dict[str, str] = field(default_factory=dict)

    def evaluated(self, settings: Settings, test: bool) -> int:
        """The images that a run is shown in evaluation: subsets on the way, the whole splits at the end."""
        sizes = dict(self.counts)
        if settings.train_on == "train+validation":
            sizes["train"] += sizes.pop("validation")
        if not test:
            sizes.pop("test")
        times = math.ceil(settings.steps / settings.evaluate_every)
        return sum(times * min(settings.evaluation_images, size) + size for size in sizes.values())

    def flops(self, settings: Settings) -> int | None:
        """Floating-point operations of one image's forward pass through an MLP, 2 a multiply-add; None for a VGG."""
        if not settings.kind.endswith("mlp"):
            return None
        layers = itertools.pairwise((math.prod(self.shape), *settings.hidden, self.classes))
        return 2 * sum(n_in * n_out for n_in, n_out in layers)


def benchmarks(paths: Iterable[Path]) -> list[Benchmark]:
    """What the run.json of these earlier runs tell; those that cannot be read or tell no times are left out."""
    found: dict[tuple[Any, ...], Benchmark] = {}
    for path in paths:
        try:
            run = read_json(path)
            settings, splits = Settings.from_mapping(run["settings"]), run["evaluation_subsets"].values()
            times = math.ceil(run["step"] / settings.evaluate_every)
            evaluated = sum(times * split["images"] + split["of"] for split in splits)
            device = run["device"]
            key = (settings, device["type"], device.get("gpu", device["cpu"]), run["forward_flops"])
            paces = run["seconds"] / run["samples_seen"], run["evaluation_seconds"] / evaluated
        except (InputError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            continue
        benchmark = found.setdefault(key, Benchmark(*key))
        benchmark.train.append(paces[0])
        benchmark.evaluate.append(paces[1])
    return list(found.values())


def earlier_runs(store: Path, reference: Path) -> list[Path]:
    """The run.json of the newest runs of the store, and of the studies in `reference`."""
    homes = sorted(store.glob("[0-9a-f]*"), key=_changed, reverse=True)[:MOST]
    return [home / "finished" / "run.json" for home in homes] + sorted(reference.glob("*/*/*/*/run.json"))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # forgotten in this moment
        return 0.0


def run_seconds(
    settings: Settings, data: Data, known: Sequence[Benchmark], test: bool = True, device: str = "cpu"
) -> tuple[Seconds, str]:
    """Training and evaluation of a run without its job's start-up, and in words which earlier runs tell.

    The likely pace is the median of the nearest earlier runs: those of the same settings, else all that are about as
    near as the nearest. The range goes from the fastest to the slowest of them, or of the `FEW` nearest.
    """
    flops = data.flops(settings)
    near = sorted(
        ((_distance(settings, flops, other, device), other) for other in known if other.settings.kind == settings.kind),
        key=_first,
    )
    if not near:
        return UNKNOWN, "no earlier run of this kind"
    images = settings.steps * settings.batch_size, data.evaluated(settings, test)
    same = near[0][1].settings == settings
    within = near[0][0] + (0 if same else SLACK)
    nearest: list[float] = []
    wider: list[float] = []
    for distance, other in near:
        scale = flops / other.flops if flops else 1.0
        seconds = [
            scale * (images[0] * train + images[1] * evaluate)
            for train, evaluate in zip(other.train, other.evaluate, strict=True)
        ]
        if distance <= within:
            nearest += seconds
        elif len(wider) >= FEW:
            break
        wider += seconds
    words = f"{len(nearest)} of the same settings" if same else f"{len(nearest)} like it"
    return Seconds(median(nearest), min(wider), max(wider)), words


def _distance(settings: Settings, flops: int | None, other: Benchmark, device: str) -> float:
    """How little an earlier run of the same kind tells: 0 for the same settings on this machine."""
    return (
        16 * (device != other.device)
        + 4 * (other.device == "cpu" and other.processor != _processor())
        + 4 * (settings.precision != other.settings.precision)
        + abs(math.log2(settings.batch_size / other.settings.batch_size))
        + (abs(math.log2(flops / other.flops)) if flops else 0)
        + sum(getattr(settings, name) != getattr(other.settings, name) for name in COSTLY) / 2
        + (settings != other.settings) / 4
    )


def _first(pair: tuple[float, Benchmark]) -> float:
    return pair[0]


_processor = cache(machine.cpu_name)


def tasks(results: Path, store: Path, known: Sequence[Benchmark], seeds_per_job: int = 1, cores: int = 1) -> list[Task]:
    """The jobs of a study in the order of its plan, finished or not, with what each will take.

    Args:
        results: folder of the study, with its `plan/`.
        known: see `benchmarks`.
        seeds_per_job: how many seeds or trials may share a process, and so its start-up.

    Raises:
        InputError: the study has no plan, or one that cannot be read.
    """
    stages = results / "plan" / "stages"
    if not stages.is_dir():
        raise InputError(f"{stages}: expected the study's plan, found none; `snakemake -n` writes it")
    study = _Study(results, store, known)
    found: list[Task] = []
    for search, stage in read_json(stages / "search.json")["settings"].items():
        if "trials" in stage:
            trials = [study.trial(search, trial) for trial in stage["trials"]]
            found += _with_start_up(trials, seeds_per_job, cores)
        else:
            found.append(study.halving(search))
    for variant in read_json(stages / "summarise.json")["settings"]["variants"]:
        seeds = [study.seed(variant["name"], seed) for seed in variant["seeds"]]
        found += _with_start_up(seeds, seeds_per_job, cores)
    return found + _stages(results, found)


def _row_of(search: str) -> str:
    """A search and the variant that takes its winner may have one name."""
    return f"search {search}"


class _Study:
    """A study's plan, and what its jobs will take."""

    def __init__(self, results: Path, store: Path, known: Sequence[Benchmark]):
        self.results, self.store, self.known = results, store, known
        self.data = _data(results)
        self.gpu = machine.gpu_visible()
        self.read = cache(read_json)
        self.choices = cache(self._choices)
        self.estimated: dict[tuple[tuple[Settings, ...], bool], tuple[Seconds, str]] = {}

    def seed(self, variant: str, seed: int) -> Task:
        """A run of a variant."""
        document = self.read(self.results / f"plan/{variant}.json")
        name, folder = f"train_variant/{variant}-seed-{seed}", f"runs/{variant}/seed-{seed}"
        return self._run(name, variant, folder, document, self.choices(variant), seed, test=True)

    def trial(self, search: str, trial: str) -> Task:
        """A trial of a grid."""
        document = read_json(self.results / f"plan/search/{search}/{trial}.json")
        name, folder = f"train_trial/{search}-{trial}", f"search/{search}/{trial}"
        choices = (plan.settings_of(document),)
        return self._run(name, _row_of(search), folder, document, choices, document["seed"], test=False)

    def halving(self, search: str) -> Task:
        """A search that draws its trials: one job, whose workers train a rung's trials side by side."""
        document = read_json(self.results / f"plan/halving/{search}.json")
        halving, name = document["halving"], f"search_halving/{search}"
        base = plan.settings_of(document, next(_combinations(document["grid"])))
        job = Task(name, _row_of(search), Seconds(0, 0, 0), gpu=self._on_gpu(base), after=frozenset({DATA}))
        job = replace(job, threads=base.threads * halving["workers"])
        if (self.results / f"search/{search}/trials.json").is_file():
            return replace(job, finished=True)
        count, parts, basis = halving["trials"], [], ""
        for steps in document["rung_steps"]:
            drawn = tuple(plan.settings_of(document, c | {"steps": steps}) for c in _combinations(document["grid"]))
            seconds, basis = self._estimate(drawn, test=False)
            parts.append(Seconds(*(count * part / min(count, halving["workers"]) for part in seconds)))
            count = max(count // halving["reduction"], 1)
        return replace(job, seconds=_plus(total(parts), START_UP[base.kind.split("-")[0]]), basis=basis)

    def _run(
        self,
        name: str,
        row: str,
        folder: str,
        document: dict[str, Any],
        choices: tuple[Settings, ...],
        seed: int,
        test: bool,
    ) -> Task:
        """A job that trains one run, with settings that are one of these."""
        finished = len(choices) == 1 and self._is_finished(folder, document["code"], choices[0], seed, test)
        seconds, basis = (Seconds(0, 0, 0), "") if finished else self._estimate(choices, test)
        return Task(
            name,
            row,
            seconds,
            basis,
            run=f"{document['variant']} seed {seed}",
            kind=choices[0].kind,
            finished=finished,
            threads=choices[0].threads,
            gpu=self._on_gpu(choices[0]),
            after=frozenset({DATA, *((_row_of(document["search"]),) if document.get("search") else ())}),
        )

    def _on_gpu(self, settings: Settings) -> bool:
        return self.gpu and settings.kind.startswith("torch")

    def _estimate(self, choices: tuple[Settings, ...], test: bool) -> tuple[Seconds, str]:
        """The mean over what the settings may turn out to be, and the range of all."""
        if (choices, test) not in self.estimated:
            device = "cuda" if self._on_gpu(choices[0]) else "cpu"
            each = [run_seconds(settings, self.data, self.known, test, device) for settings in choices]
            parts = [seconds for seconds, _ in each]
            mean = math.fsum(part.likely for part in parts) / len(parts)
            spread = Seconds(mean, min(part.low for part in parts), max(part.high for part in parts))
            words = each[0][1] if len(each) == 1 else f"mean of {len(each)} that may be chosen"
            self.estimated[choices, test] = spread, words
        return self.estimated[choices, test]

    def _choices(self, variant: str) -> tuple[Settings, ...]:
        """A variant's settings; as long as its search has selected none, all that it may select."""
        document = self.read(self.results / f"plan/{variant}.json")
        search = document["search"]
        if not search:
            return (plan.settings_of(document),)
        selected = self.results / "search" / search / "selected.yaml"
        if selected.is_file():
            return (plan.settings_of(document, yaml.safe_load(selected.read_text())["settings"]),)
        grid = read_json(self.results / f"plan/select/{search}.json")["settings"]["grid"]
        return tuple(plan.settings_of(document, chosen) for chosen in _combinations(grid))

    def _is_finished(self, folder: str, code: str, settings: Settings, seed: int, test: bool) -> bool:
        """Whether the run is in the store, or in the study's folder though the store was emptied."""
        if not self.data.digests:
            return False
        opened = {name: digest for name, digest in self.data.digests.items() if test or not name.startswith("test-")}
        identity = run_identity(settings, seed, opened, code)
        if (self.store / identity / "finished" / "run.json").is_file():
            return True
        published = self.results / folder / "run.json"
        return published.is_file() and read_json(published).get("identity") == identity


def _data(results: Path) -> Data:
    """The prepared data, or what the plan tells of them beforehand."""
    if (results / "dataset" / "dataset.json").is_file():
        dataset = datasets.load(results / "dataset")
        shape = tuple(dataset.description["shape"])
        return Data(dataset.counts, shape, len(dataset.class_names), dataset.digests())
    stage = read_json(results / "plan" / "stages" / "prepare.json")["settings"]
    held_out = stage["validation_images"]
    source = stage["source"]["source"]
    images = TRAINING_IMAGES.get(source, TRAINING_IMAGES["cifar10"])
    counts = {"train": images - held_out, "validation": held_out, "test": TEST_IMAGES}
    return Data(counts, SHAPES.get(source, SHAPE))


def _combinations(grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The combinations of a search's values, 200 at most; the lower end of a range, which is no matter of time."""
    values = (axis if isinstance(axis, list) else [axis["low"]] for axis in grid.values())
    for chosen in itertools.islice(itertools.product(*values), 200):
        yield dict(zip(grid, chosen, strict=True))


def _with_start_up(group: list[Task], seeds_per_job: int, cores: int) -> list[Task]:
    """Runs that may share a process, each with what its job takes besides: start-up, or no more than publication.

    As many processes begin as there are cores, and each trains up to `seeds_per_job` runs while they are short.
    """
    new = [task for task in group if not task.finished]
    if not new:
        return group
    short = max(task.seconds.likely for task in new) < SHORT_RUN
    begun = max(math.ceil(len(new) / seeds_per_job), min(cores, len(new))) if short else len(new)
    start_up = START_UP[new[0].kind.split("-")[0]]
    overheads = {task.name: start_up if i < begun else PUBLICATION for i, task in enumerate(new)}
    return [replace(task, seconds=_plus(task.seconds, overheads.get(task.name, 0.0))) for task in group]


def _plus(seconds: Seconds, more: float) -> Seconds:
    return Seconds(*(part + more for part in seconds))


def _stages(results: Path, runs: list[Task]) -> list[Task]:
    """The other jobs, with what the timings of this and other studies tell; those that no study has timed are missing.

    Preparation and the equations' checks are made once; the others follow new runs.
    """
    timed: dict[str, list[float]] = {}
    for path in results.parent.glob("*/timings/*.tsv"):
        with suppress(OSError, ValueError, KeyError, IndexError):
            rows = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
            timed.setdefault(path.stem, []).append(float(rows[0]["s"]))
    fresh = any(not task.finished for task in runs)
    others = frozenset(task.row for task in runs)
    found = []
    for name, seconds in sorted(timed.items()):
        once = name in ("prepare_dataset", "check_equations")
        there = (results / "timings" / f"{name}.tsv").is_file()
        if there and (once or not fresh):
            continue
        spread = Seconds(median(seconds), min(seconds), max(seconds))
        row, after = (DATA, frozenset[str]()) if name == "prepare_dataset" else (STAGES, others)
        found.append(Task(name, row, spread, f"{len(seconds)} of the same job", after=after))
    return found


def wall_seconds(tasks: Iterable[Task], cores: int, which: int = 0, longest_first: bool = True) -> float:
    """The time until all jobs have ended, begun in the order of their length as cores become free.

    Args:
        which: 0 for the likely seconds, 1 for the least, 2 for the most.
    """
    lengths = {task.name: 0.0 if math.isnan(task.seconds.likely) else task.seconds[which] for task in tasks}
    waiting = sorted(
        (task for task in tasks if not task.finished), key=lambda t: lengths[t.name], reverse=longest_first
    )
    left = Counter(task.row for task in waiting)
    running: list[tuple[float, int, Task]] = []
    now, free, gpus, begun = 0.0, cores, 1, 0
    while waiting or running:
        later = []
        for index, task in enumerate(waiting):
            if free == 0:
                later += waiting[index:]
                break
            threads = min(task.threads, cores)
            if threads > free or task.gpu > gpus or any(left[row] for row in task.after):
                later.append(task)
                continue
            free, gpus, begun = free - threads, gpus - task.gpu, begun + 1
            heapq.heappush(running, (now + lengths[task.name], begun, task))
        waiting = later
        now, _, ended = heapq.heappop(running)
        free, gpus = free + min(ended.threads, cores), gpus + ended.gpu
        left[ended.row] -= 1
    return now


def wall(tasks: Sequence[Task], cores: int) -> Seconds:
    """The wall time. Snakemake knows no lengths: likely is the middle between long jobs first and long jobs last."""
    first, last = (wall_seconds(tasks, cores, 0, longest) for longest in (True, False))
    return Seconds((first + last) / 2, wall_seconds(tasks, cores, 1, True), wall_seconds(tasks, cores, 2, False))


def report(tasks: Sequence[Task], cores: int) -> str:
    """A row a variant or search, and the total: runs, those finished, core minutes, and which earlier runs tell."""
    rows: dict[str, list[Task]] = {}
    for task in tasks:
        rows.setdefault(task.row, []).append(task)
    lines = [f"{'':24} {'jobs':>5} {'done':>5} {'core minutes':>13}  {'range':15} from earlier runs"]
    for row, members in rows.items():
        basis = next((task.basis for task in members if task.basis), "")
        lines.append(_line(row, members, basis))
    lines.append(_line("all", tasks, ""))
    expected = wall(tasks, cores)
    lines.append(f"\nwall time on {cores} core{'s' * (cores != 1)}: {told(expected)}")
    if unknown := sum(math.isnan(task.seconds.likely) for task in tasks):
        lines.append(f"without {unknown} job(s) of kinds that no earlier run tells of")
    return "\n".join(lines)


def _line(name: str, tasks: Sequence[Task], basis: str) -> str:
    work = total(Seconds(*(task.threads * part for part in task.seconds)) for task in tasks)
    done = sum(task.finished for task in tasks)
    unknown = "?" if all(math.isnan(task.seconds.likely) for task in tasks) else f"{work.likely / 60:.1f}"
    spread = f"{work.low / 60:.1f} to {work.high / 60:.1f}" if work.high > 0 else ""
    return f"{name:24} {len(tasks):5} {done:5} {unknown:>13}  {spread:15} {basis}".rstrip()


def told(seconds: Seconds) -> str:
    """A time and its range, as `1 h 40 min (1 h 12 min to 2 h 30 min)`."""
    return f"{clock(seconds.likely)} ({clock(seconds.low)} to {clock(seconds.high)})"


def clock(seconds: float) -> str:
    """As `45 s`, `12 min` or `1 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
