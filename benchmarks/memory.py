"""Peak memory of a short training: a process of its own that trains and evaluates one run, as a job does with each.

A real job takes more: it evaluates all images, trains up to ten seeds one after the other and files what they made
(`peak_memory_mb` in run.json; 1.6 GB with PyTorch on the reference's machine).
`python memory.py job VARIANT DATASET` is such a process, on fewer steps; `python memory.py all DATASET` starts one for
the NumPy MLP, one for the PyTorch MLP and one for the VGG, and prints {"results": …, "info": …} as its last line.

`ru_maxrss` counts the pages of the mapped dataset and of shared libraries, which all jobs share. What a job needs for
itself is RssAnon. Both are taken; the goals are held against the larger, ru_maxrss. The limit is what the process held
once its libraries were imported, and its training images.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

from timing import judged, settings, told

STEPS = {"mlp-numpy": 300, "mlp-torch": 300, "vgg": 3}
EVALUATED = {"mlp-numpy": 10_000, "mlp-torch": 10_000, "vgg": 300}


def status(*names: str) -> dict[str, int]:
    """Entries of /proc/self/status and smaps_rollup in kB; none where the system has no such files."""
    found = {}
    for path in (Path("/proc/self/status"), Path("/proc/self/smaps_rollup")):
        lines = path.read_text().splitlines() if path.exists() else []
        found |= {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines) if key in names}
    return found


def job(variant: str, folder: Path) -> None:
    """Trains as the store does, and prints what it took at most, in GB of 10⁹ bytes, sampled every 50 ms."""
    from cifar_report.data import datasets
    from cifar_report.study.kinds import entries
    from cifar_report.training.loop import build_trainer
    from cifar_report.training.splits import splits_of

    chosen = dataclasses.replace(settings(variant), steps=STEPS[variant], evaluate_every=STEPS[variant])
    entries(chosen.kind)
    imported = status("VmRSS").get("VmRSS", 0)
    peaks: dict[str, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for name, value in status("RssAnon", "Pss").items():
                peaks[name] = max(peaks.get(name, 0), value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    dataset = datasets.load(folder)
    splits = splits_of(chosen, dataset.arrays())
    least = imported + splits["train"].images.nbytes / 1024
    trainer = build_trainer(chosen, splits["train"], len(dataset.class_names), 0)
    trainer.advance(chosen.steps)
    for split in splits.values():
        trainer.logits(split.images[: EVALUATED[variant]])
    trainer.state()  # of a checkpoint
    over.set()
    watcher.join()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({name: kb * 1024 / 1e9 for name, kb in (peaks | {"ru_maxrss": rss, "least": least}).items()}))


def main(folder: Path) -> None:
    """All rows."""
    results, info = [], []
    for variant, name, goal in (
        ("mlp-numpy", "Peak memory of a short NumPy MLP run", 0.7),
        ("mlp-torch", "Peak memory of a short PyTorch MLP run", 0.7),
        ("vgg", "Peak memory of a short VGG run", 1.5),
    ):
        command = [sys.executable, __file__, "job", variant, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak = json.loads(done.stdout.splitlines()[-1])
        value, limit = [peak.pop("ru_maxrss")], [peak.pop("least")]
        results.append(judged(f"{name} (ru_maxrss)", "GB", f"value <= {goal}", value, limit=limit))
        info += [told(f"{name} ({measure})", value, "GB") for measure, value in sorted(peak.items())]
    print(json.dumps({"results": results, "info": info}))


if __name__ == "__main__":
    if sys.argv[1] == "job":
        job(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[2]))
