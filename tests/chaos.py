"""Kills a small study at random, over and over, and compares what it makes with an undisturbed run, byte by byte.

`python tests/chaos.py` (`make chaos`) is the long form and writes benchmarks/chaos.json; test_chaos.py the short one.
"""

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import yaml
from safetensors import safe_open
from test_workflow import PARTS, ROOT

from cifar_report.base.files import to_json, write_text

FAULTS = {
    "job": "SIGKILL to a process of a job",
    "snakemake": "SIGKILL to Snakemake",
    "group": "SIGKILL to the whole process group",
    "ctrl-c": "SIGINT to the whole process group",
    "disk": "disk full",
    "late": "SIGKILL to the whole process group while a job prepares, analyses or renders",
}
EVALUATE_EVERY = 100
OVERLAY = {
    "study": "chaos",
    "seeds": [0],
    "run": ["mlp-numpy", "mlp-tuned", "vgg"],
    "variants": {
        "mlp-numpy": {"steps": 4000, "evaluate_every": EVALUATE_EVERY},
        "mlp-torch": {"steps": 2000, "evaluate_every": EVALUATE_EVERY},
        "vgg": {"steps": 6, "evaluate_every": 1, "seeds": [0], "evaluation_images": 20},
    },
    "search": {"mlp-grid": {"seeds": [100], "grid": [{"setting": "batch_size", "values": [20, 50]}]}},
    "shifts": {"variants": ["mlp-tuned"], "images": 20},
}
RESULTS = Path("results/chaos")
EQUATIONS = Path("results/.equations")
COMPARED = (
    *("runs/*/*/curve.csv", "runs/*/*/model.safetensors", "runs/*/*/test-logits.npy"),
    *("search/*/*/curve.csv", "search/*/selected.yaml", "claims.json", "report.pdf"),
)
GONE_WITHIN = 5.0  # seconds after Snakemake's end in which its jobs end too


@dataclass
class Tally:
    """What became of the faults of one kind."""

    injected: int = 0
    lost: int = 0
    recovery: list[float] = field(default_factory=list)  # seconds until a job runs again
    stop: list[float] = field(default_factory=list)  # seconds until all processes had ended


class Study:
    """A study in a folder of its own, and the Snakemake that makes it."""

    def __init__(self, folder: Path, targets: list[str], overlay: dict):
        self.folder, self.targets = folder, targets
        folder.mkdir(exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy2(source, folder / part)
        self.overlay = f"{overlay['study']}.yaml"
        (folder / self.overlay).write_text(yaml.safe_dump(overlay))
        self.log = folder.with_name(f"{folder.name}-{overlay['study']}.log")  # not on the disk that is filled

    def start(self) -> None:
        """Calls Snakemake as `make report` does, in a process group of its own; a killed job is tried again twice."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--retries", "2"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--configfile", "config/demo.yaml", self.overlay, "--", *self.targets],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": path},
                # A suite that a shell runs in the background ignores Ctrl-C, and what it starts would inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def jobs(self, late: bool = False) -> list[list[str]]:
        """The commands of the jobs that run, or of those that do not train."""
        commands = map(_command, self.descendants())  # Snakemake's plugins start programs too
        jobs = [command for command in commands if any("-report" in part for part in command)]
        return [command for command in jobs if not (late and _trains(command))]

    def await_job(self, late: bool = False) -> bool:
        """Whether such a job runs, as soon as one does; False once Snakemake has ended."""
        while self.process.poll() is None:
            if self.jobs(late):
                return True
            time.sleep(0.02)
        return False

    def finish(self) -> None:
        """Runs to the end, undisturbed and without any clean-up before.

        Raises:
            AssertionError: Snakemake fails.
        """
        if self.process.poll() is None:
            self.process.wait()
        if self.process.returncode:
            self.start()
            self.process.wait()
        logs = "".join(path.read_text()[-1000:] for path in self.folder.glob(f"{RESULTS}/logs/**/*.log"))
        assert self.process.returncode == 0, self.log.read_text()[-3000:] + logs

    def digests(self) -> dict[str, str]:
        """SHA-256 of everything that must not depend on what happened on the way."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in COMPARED
            for path in sorted(self.folder.glob(f"{RESULTS}/{pattern}"))
        }

    def forget(self) -> None:
        """Removes what was made, but for what other studies may have left: that the equations' tests have passed."""
        for path in (self.folder / "results").iterdir():
            if path.is_file():
                path.unlink()
            elif path.name != EQUATIONS.name:
                shutil.rmtree(path)
        shutil.rmtree(self.folder / ".snakemake")

    def evaluated(self, train: list[str]) -> int:
        """The last step that the log of an unfinished run tells, 0 before the first; `train` is its job's command."""
        variant, seed = Path(train[train.index("--output") + 1]).parts[-2:]
        log = self.folder / RESULTS / f"logs/train_variant/{variant}-{seed}.log"
        steps = re.findall(r"  step (\d+)/(\d+)", log.read_text(errors="replace")) if log.is_file() else []
        return 0 if not steps or steps[-1][0] == steps[-1][1] else int(steps[-1][0])

    def checkpoint(self) -> int:
        """The step of the newest checkpoint, 0 for none; a torn one raises SafetensorError."""
        paths = sorted(self.folder.glob("results/.store/*/checkpoint.safetensors"), key=os.path.getmtime)
        for path in paths[-1:]:
            with safe_open(path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118
                    file.get_tensor(name)
                return int(file.metadata()["step"])
        return 0


def inject(fault: str, study: Study, chance: random.Random) -> tuple[bool, float] | None:
    """Injects one fault; whether it was borne so far, and the seconds until all that it was to end had ended.

    None where nothing runs any more that could be hit.

    Borne: no process outlives its Snakemake, no checkpoint is torn, and none is more than one evaluation behind.
    """
    processes = study.descendants()
    if not processes:
        return None
    trains = {p: command for p in processes if _trains(command := _command(p)) and "--seed" in command}
    begun = time.monotonic()
    if fault == "job":
        victims = [chance.choice(list(trains) or processes)]
        victims[0].kill()
    elif fault == "disk":
        victims = []
        with _full(study.folder):
            time.sleep(chance.uniform(1, 3))
    else:
        victims = processes
        number = signal.SIGINT if fault == "ctrl-c" else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            if fault == "snakemake":
                study.process.send_signal(number)
            else:
                os.killpg(study.process.pid, number)
        study.process.wait()
    _, alive = psutil.wait_procs(victims, timeout=GONE_WITHIN)
    seconds = time.monotonic() - begun
    for process in alive:
        process.kill()
    behind = 0
    for command in trains.values():
        with contextlib.suppress(FileNotFoundError):  # the run is finished in this moment
            behind = study.evaluated(command) - study.checkpoint()
    return not alive and behind <= EVALUATE_EVERY, seconds


def storm(
    study: Study,
    reference: dict[str, str],
    faults: list[str],
    pause: Callable[[], float],
    chance: random.Random,
) -> dict[str, Tally]:
    """Injects all these faults, each some seconds after a job has begun; what became of those of each kind.

    Where Snakemake has ended, it is called again, without any clean-up before; a study that is done is compared with
    the undisturbed one and begun anew, and the last one is finished undisturbed. Where one ends otherwise, or does not
    end, all faults since it was begun are lost.
    """
    total = {fault: Tally() for fault in dict.fromkeys(faults)}
    survived: Counter[str] = Counter()

    def compare() -> None:
        same = study.digests() == reference
        print(f"{time.strftime('%H:%M:%S')} a study is done, {'the same' if same else 'NOT the same'}", flush=True)
        for fault, count in survived.items():
            total[fault].lost += 0 if same else count
        survived.clear()
        print({fault: (count.injected, count.lost) for fault, count in total.items()}, flush=True)

    def await_job(late: bool) -> None:
        for _ in range(9):
            if study.process.poll() is None and study.await_job(late):
                return
            if study.process.returncode == 0:
                compare()
                study.forget()
            study.start()
        raise AssertionError(study.log.read_text()[-3000:])

    study.start()
    try:
        for fault in faults:
            late, injected = fault == "late", None
            while injected is None:
                await_job(late)
                time.sleep(pause())
                injected = inject(fault, study, chance) if study.jobs(late) else None
            borne, seconds = injected
            restored, count = time.monotonic(), total[fault]
            count.injected += 1
            count.lost += not borne
            survived[fault] += borne
            if fault == "ctrl-c":
                count.stop.append(seconds)
            if study.process.poll() is not None:
                study.start()
            if study.await_job():
                count.recovery.append(time.monotonic() - restored)
        study.finish()
        compare()
    except AssertionError as error:
        print(error, file=sys.stderr)
        reference = {}
        compare()
    return total


def record(total: dict[str, Tally]) -> list[dict]:
    """The table that is written: a row a fault."""
    rows = []
    for fault, name in FAULTS.items():
        count = total.get(fault, Tally())
        row = {"fault": name, "injected": count.injected, "survived": count.injected - count.lost, "lost": count.lost}
        row["recovery_seconds"] = _spread(count.recovery)
        if fault == "ctrl-c":
            row["stop_seconds"] = _spread(count.stop)
        if not count.injected:
            row["note"] = "not injected: a disk of its own takes root" if fault == "disk" else "not injected"
        rows.append(row)
    return rows


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mounts a small file system at a folder; yields whether that was possible."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "chaos", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Takes all the space that is left on a folder's disk."""
    filler = folder / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        yield
    finally:
        filler.unlink()


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _trains(command: list[str]) -> bool:
    return any(part in ("train-variant", "train-trial") or "cifar-report train-" in part for part in command)


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": round(statistics.median(seconds), 2), "largest": round(max(seconds), 2)}


def main() -> int:
    """The long form; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/chaos.json")
    options = parser.parse_args()
    chance = random.Random(options.seed)

    def pause() -> float:
        """Short mostly, into a job's start; long at times, so that jobs of all kinds come to their turn."""
        return chance.uniform(0.2, 4) if chance.random() < 0.8 else chance.uniform(5, 60)

    total: dict[str, Tally] = {}
    weights = {"job": 10, "snakemake": 4, "group": 4, "ctrl-c": 2, "disk": 1}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("undisturbed", "chaos")]
        folders[1].mkdir()
        undisturbed = Study(folders[0], ["all"], OVERLAY)
        begun = time.monotonic()
        undisturbed.start()
        undisturbed.finish()
        print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
        with small_disk(folders[1], 400) as mounted:
            possible = {fault: weight for fault, weight in weights.items() if fault != "disk" or mounted}
            late = options.kills // 5
            faults = chance.choices(list(possible), list(possible.values()), k=options.kills - late)
            shutil.copytree(folders[0] / EQUATIONS, folders[1] / EQUATIONS)
            reference = undisturbed.digests()
            of_runs = {name: digest for name, digest in reference.items() if "/runs/" in name or "/search/" in name}
            # While it trains, over and over; then while the rest of the last one is made.
            trains = Study(
                folders[1], [str(RESULTS / f"runs/{name}/seed-0/run.json") for name in OVERLAY["run"]], OVERLAY
            )
            total |= storm(trains, of_runs, faults, pause, chance)
            total |= storm(Study(folders[1], ["all"], OVERLAY), reference, ["late"] * late, pause, chance)
    # Not before: a changed file here is a change that was not committed, which runs record and the report says.
    write_text(options.output, to_json(record(total)))
    return int(any(count.lost for count in total.values()))


if __name__ == "__main__":
    sys.exit(main())
