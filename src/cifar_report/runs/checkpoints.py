"""Where a run stands while it trains: one file, resumed from only if it belongs to this run and is undamaged."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.numpy
from safetensors import SafetensorError, safe_open

from cifar_report.base.files import atomic

if TYPE_CHECKING:
    from cifar_report.training.loop import Checkpoint


def save(path: Path, identity: str, environment: dict[str, Any], checkpoint: "Checkpoint") -> None:
    """Writes a checkpoint, with whose it is and what computed it.

    Args:
        environment: as of `machine.environment`.
    """
    metadata = {
        "identity": identity,
        "environment": json.dumps(environment, sort_keys=True),
        "step": str(checkpoint.step),
        "history": json.dumps(vars(checkpoint.history)),
        "digest": checkpoint.digest,
    }
    with atomic(path) as file:
        file.write(safetensors.numpy.save(checkpoint.state, metadata))


def read(path: Path, identity: str, environment: dict[str, Any]) -> "Checkpoint | None":
    """The checkpoint to go on from: none that is damaged, of another run, or of another machine's arithmetic.

    Beginning anew gives the same run, and all its bits are of one machine.
    """
    from cifar_report.training.loop import Checkpoint, History, checkpoint_digest

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, history = int(metadata["step"]), History(**json.loads(metadata["history"]))
        made = json.loads(metadata["environment"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        print(f"{path}: the checkpoint is damaged ({error}); the run begins anew", flush=True)
        return None
    checkpoint = Checkpoint(step, state, history, metadata.get("digest", ""))
    if checkpoint.digest != checkpoint_digest(step, state, history):
        print(f"{path}: the checkpoint differs from its SHA-256; the run begins anew", flush=True)
        return None
    if metadata.get("identity") != identity:
        print(f"{path}: the checkpoint is that of another run; this one begins anew", flush=True)
        return None
    if made != environment:
        told = " and ".join(
            f"{key} {made[part].get(key)} (now {environment[part].get(key)})"
            for part in environment
            for key in sorted({*made[part], *environment[part]})
            if made[part].get(key) != environment[part].get(key)
        )
        print(
            f"{path}: the checkpoint was made with {told}; the run begins anew, so that its bits are of one", flush=True
        )
        return None
    return checkpoint
