"""How long a study will take: what equal or else the nearest earlier runs took, scaled by their arithmetic, and summed.

Arithmetic is floating-point operations of a forward pass, where they are known, times images trained on. Runs are read
here by themselves: a dry run prints the forecast, and has no time for pandas, which `load_run` imports.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.data import datasets
from cifar_report.runs import machine
from cifar_report.study import plan
from cifar_report.study.identity import run_identity
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import Settings

JOB = 4.0  # seconds of a job besides its run: interpreter, imports, data, Snakemake
NEAREST = 3  # at least so many earlier runs make a range, where there are so many of the kind
MOST = 500  # runs of the store that are read, the newest
VALUES, CLASSES = 3 * 32 * 32, 10  # of an image and a data set that is not prepared yet
COMBINATIONS = 200  # of a search's values, at most


class Seconds(NamedTuple):
    """What is likely, and a range: from the fastest to the slowest of the earlier runs. NaN where nothing is known."""

    likely: float
    low: float
    high: float


NONE, UNKNOWN = Seconds(0, 0, 0), Seconds(math.nan, math.nan, math.nan)


def total(parts: Iterable[Seconds]) -> Seconds:
    """The sum; what is unknown counts as nothing."""
    known = [part for part in parts if not math.isnan(part.likely)]
    return Seconds(*(math.fsum(part[i] for part in known) for i in range(3)))


@dataclass(frozen=True)
class Task:
    """A job to come that trains."""

    name: str  # as of its log and its timing
    row: str  # its variant or search
    seconds: Seconds
    basis: str = ""  # which earlier runs tell
    run: str = ""  # the run that it trains, as its log names it
    finished: bool = False  # its run is in the store
    threads: int = 1
    gpu: bool = False


@dataclass(frozen=True)
class EarlierRun:
    """A finished run: its settings, where it ran, its arithmetic (operations of one image's forward pass), its time."""

    settings: Settings
    device: str  # cpu or cuda
    processor: str
    flops: int
    images: int  # that it was trained on
    seconds: float  # of training and evaluation


def earlier_runs(store: Path, reference: Path) -> list[EarlierRun]:
    """The newest runs of the store, and those of the studies in `reference`; what cannot be read is left out."""
    homes = sorted(store.glob("[0-9a-f]*"), key=_changed, reverse=True)[:MOST]
    runs = []
    for path in [home / "finished/run.json" for home in homes] + sorted(reference.glob("*/*/*/*/run.json")):
        try:
            run = read_json(path)
            settings, device = Settings.from_mapping(run["settings"]), run["device"]
            took = run["seconds"] + run["evaluation_seconds"]
            work = run["forward_flops"], run["samples_seen"]
            runs.append(EarlierRun(settings, device["type"], device["cpu"], *work, took))
        except (InputError, KeyError, TypeError, AttributeError, ValueError):
            continue
    return [run for run in runs if run.images]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # forgotten in this moment
        return 0.0


def run_seconds(
    settings: Settings, flops: int | None, known: Iterable[EarlierRun], device: str = "cpu"
) -> tuple[Seconds, str]:
    """What a run will take, and in words which earlier runs tell: the equal ones, else the nearest of its kind.

    Likely is their median. The range is that of all of them, or of the nearest few.
    """
    alike = sorted(
        (_distance(settings, flops, run, device), _scale(settings, flops, run) * run.seconds, run.settings == settings)
        for run in known
        if run.settings.kind == settings.kind
    )
    if not alike:
        return UNKNOWN, "no earlier run of this kind"
    alike = [run for run in alike if run[0][0] == alike[0][0][0]]  # a GPU tells nothing of a processor's range
    equal = [seconds for _, seconds, same in alike if same]
    near = [seconds for _, seconds, _ in alike[: max(NEAREST, len(equal))]]
    words = f"{len(equal)} of the same settings" if equal else f"{len(near)} like it"
    return Seconds(median(equal or near), min(near), max(near)), words


def _scale(settings: Settings, flops: int | None, run: EarlierRun) -> float:
    """How many times the arithmetic of an earlier run; where operations are not known, an image counts as much."""
    return settings.steps * settings.batch_size / run.images * (flops / run.flops if flops and run.flops else 1.0)


def _distance(settings: Settings, flops: int | None, run: EarlierRun, device: str) -> tuple[float, ...]:
    """How little an earlier run of the same kind tells."""
    return (
        device != run.device,
        run.settings != settings,
        run.device == "cpu" and run.processor != _processor(),
        settings.precision != run.settings.precision,
        abs(math.log2(settings.batch_size / run.settings.batch_size))
        + abs(math.log2(flops / run.flops) if flops and run.flops else 0),
    )


_processor = cache(machine.cpu_name)


def tasks(results: Path, store: Path, known: Sequence[EarlierRun]) -> list[Task]:
    """The jobs of a study that train, in the order of its plan, finished or not, with what each will take.

    Args:
        results: folder of the study, with its `plan/`.

    Raises:
        InputError: the study has no plan, or one that cannot be read.
    """
    stages = results / "plan" / "stages"
    if not stages.is_dir():
        raise InputError(f"{stages}: expected the study's plan, found none; `snakemake -n` writes it")
    study = _Plan(results, store, known)
    jobs = []
    for search, stage in plan.stage(stages / "search.json").items():
        jobs += [study.trial(search, t) for t in stage["trials"]] if "trials" in stage else [study.halving(search)]
    for variant in plan.stage(stages / "summarise.json")["variants"]:
        jobs += [study.seed(variant["name"], seed) for seed in variant["seeds"]]
    return jobs


class _Plan:
    """A study's plan, and what its jobs will take."""

    def __init__(self, results: Path, store: Path, known: Sequence[EarlierRun]):
        self.results, self.store, self.known = results, store, known
        folder = results / "dataset"
        self.data = datasets.load(folder) if (folder / "dataset.json").is_file() else None
        self.gpu = machine.gpu_visible()
        self.choices, self.estimate = cache(self._choices), cache(self._estimate)

    def seed(self, variant: str, seed: int) -> Task:
        """A run of a variant."""
        name, folder = f"train_variant/{variant}-seed-{seed}", f"runs/{variant}/seed-{seed}"
        return self._run(name, variant, folder, f"{variant}.json", seed)

    def trial(self, search: str, trial: str) -> Task:
        """A trial of a grid."""
        folder = f"search/{search}/{trial}"
        return self._run(f"train_trial/{search}-{trial}", f"search {search}", folder, f"{folder}.json")

    def halving(self, search: str) -> Task:
        """A search that draws its trials: one job, whose workers train a rung's trials side by side."""
        document = read_json(self.results / f"plan/halving/{search}.json")
        workers, count = document["halving"]["workers"], document["halving"]["trials"]
        parts, basis = [], ""
        for steps in document["rung_steps"]:
            drawn = tuple(plan.settings_of(document, c | {"steps": steps}) for c in _combinations(document["grid"]))
            seconds, basis = self.estimate(drawn)
            parts += [seconds] * math.ceil(count / workers)
            count = max(count // document["halving"]["reduction"], 1)
        name, threads = f"search_halving/{search}", drawn[0].threads * workers
        job = Task(name, f"search {search}", NONE, finished=True, threads=threads, gpu=self._on_gpu(drawn[0]))
        if (self.results / f"search/{search}/trials.json").is_file():
            return job
        known = not math.isnan(parts[0].likely)
        return replace(job, finished=False, seconds=_with_job(total(parts)) if known else UNKNOWN, basis=basis)

    def _run(self, name: str, row: str, folder: str, path: str, seed: int | None = None) -> Task:
        """A job that trains one run; a trial's seed stands in its plan."""
        document, choices = self.choices(path)
        test, seed = seed is not None, document["seed"] if seed is None else seed
        job = Task(name, row, NONE, run=f"{document['variant']} seed {seed}", threads=choices[0].threads)
        job = replace(job, gpu=self._on_gpu(choices[0]))
        if len(choices) == 1 and self._is_finished(folder, document["code"], choices[0], seed, test):
            return replace(job, finished=True)
        seconds, basis = self.estimate(choices)
        return replace(job, seconds=_with_job(seconds), basis=basis)

    def _choices(self, path: str) -> tuple[dict[str, Any], tuple[Settings, ...]]:
        """A plan file and its settings; as long as its search has selected none, all that it may select."""
        document = read_json(self.results / "plan" / path)
        search = document.get("search")
        if not search:
            return document, (plan.settings_of(document),)
        selected = self.results / "search" / search / "selected.yaml"
        if selected.is_file():
            return document, (plan.settings_of(document, plan.selected_settings(selected)),)
        grid = plan.stage(self.results / f"plan/select/{search}.json")["grid"]
        return document, tuple(plan.settings_of(document, chosen) for chosen in _combinations(grid))

    def _estimate(self, choices: tuple[Settings, ...]) -> tuple[Seconds, str]:
        """The mean over what the settings may turn out to be, and the range of all."""
        device = "cuda" if self._on_gpu(choices[0]) else "cpu"
        each = [run_seconds(settings, self._flops(settings), self.known, device) for settings in choices]
        likely, low, high = zip(*(seconds for seconds, _ in each), strict=True)
        words = each[0][1] if len(each) == 1 else f"mean of {len(each)} that may be chosen"
        return Seconds(fmean(likely), min(low), max(high)), words

    def _flops(self, settings: Settings) -> int | None:
        """Operations of one image's forward pass through an MLP, 2 a multiply-add; None for other models."""
        if KINDS[settings.kind].family != "mlp":
            return None
        values, classes = VALUES, CLASSES
        if self.data:
            values, classes = math.prod(self.data.shape), len(self.data.class_names)
        widths = values, *settings.hidden, classes
        return 2 * sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))

    def _on_gpu(self, settings: Settings) -> bool:
        return self.gpu and KINDS[settings.kind].backend == "torch"

    def _is_finished(self, folder: str, code: str, settings: Settings, seed: int, test: bool) -> bool:
        """Whether the store has the run, or the study does."""
        if not self.data:
            return False
        identity = run_identity(settings, seed, self.data.digests(test), code)
        if (self.store / identity / "finished" / "run.json").is_file():
            return True
        published = self.results / folder / "run.json"
        return published.is_file() and read_json(published).get("identity") == identity


def _combinations(grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The combinations of a search's values; the lower end of a range, which is no matter of time."""
    values = (axis if isinstance(axis, list) else [axis["low"]] for axis in grid.values())
    for chosen in itertools.islice(itertools.product(*values), COMBINATIONS):
        yield dict(zip(grid, chosen, strict=True))


def _with_job(seconds: Seconds) -> Seconds:
    return Seconds(*(part + JOB for part in seconds))


def wall(jobs: Sequence[Task], cores: int) -> Seconds:
    """The time on so many cores: their shares of all, but no less than the longest job, or all that need the GPU."""
    left = [job for job in jobs if not job.finished and not math.isnan(job.seconds.likely)]
    shares = total(Seconds(*(min(job.threads, cores) / cores * part for part in job.seconds)) for job in left)
    on_gpu = total(job.seconds for job in left if job.gpu)
    longest = (max((job.seconds[i] for job in left), default=0.0) for i in range(3))
    return Seconds(*map(max, shares, on_gpu, longest))


def report(jobs: Sequence[Task], cores: int) -> str:
    """A row a variant or search, and the total: runs, those finished, core minutes, and which earlier runs tell."""
    rows: dict[str, list[Task]] = {}
    for job in jobs:
        rows.setdefault(job.row, []).append(job)
    lines = [f"{'':24} {'jobs':>5} {'done':>5} {'core minutes':>13}  {'range':15} from earlier runs"]
    lines += [_line(row, members, next((m.basis for m in members if m.basis), "")) for row, members in rows.items()]
    lines.append(_line("all", jobs, ""))
    if all(job.finished for job in jobs):
        lines.append("\nnothing is left to train")
    else:
        on = f"on {cores} core{'s' * (cores != 1)}, without analysis and report"
        lines.append(f"\nwall time {on}: {in_words(wall(jobs, cores))}")
    if unknown := sum(math.isnan(job.seconds.likely) for job in jobs):
        lines.append(f"without {unknown} job(s) of kinds that no earlier run tells of")
    return "\n".join(lines)


def _line(name: str, jobs: Sequence[Task], basis: str) -> str:
    work = total(Seconds(*(job.threads * part for part in job.seconds)) for job in jobs)
    done = sum(job.finished for job in jobs)
    unknown = "?" if all(math.isnan(job.seconds.likely) for job in jobs) else f"{work.likely / 60:.1f}"
    spread = f"{work.low / 60:.1f} to {work.high / 60:.1f}" if work.high > 0 else ""
    return f"{name:24} {len(jobs):5} {done:5} {unknown:>13}  {spread:15} {basis}".rstrip()


def in_words(seconds: Seconds) -> str:
    """A time and its range, as `1 h 40 min (1 h 12 min to 2 h 30 min)`."""
    return f"{clock(seconds.likely)} ({clock(seconds.low)} to {clock(seconds.high)})"


def clock(seconds: float) -> str:
    """As `45 s`, `12 min` or `1 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
