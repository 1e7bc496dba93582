"""Any file that a job of a study reads back, damaged: refused by name, or what is made has the same bytes.

`make fuzz` (HYPOTHESIS_PROFILE=fuzz) damages 2,500 files, the short form 60.
"""

import os
import random
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

from test_workflow import snakemake

from cifar_report import cli

DAMAGES = 2_500 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 60
READ: set[str] = set()
HOOKED: list[bool] = []


def _note(event, arguments):
    if HOOKED and event == "open" and isinstance(arguments[0], str | Path):
        READ.add(str(arguments[0]))


sys.addaudithook(_note)


def damaged(draw, content, others):
    """A file's content cut, with one bit flipped, gone, another file's, or what JSON has for nothing."""
    kind = draw.choice(["cut", "flipped", "empty", "swapped", "null", "[]"])
    if kind == "cut":
        return content[: draw.randrange(len(content) or 1)]
    if kind == "flipped":
        place, changed = draw.randrange(len(content) or 1), bytearray(content or b" ")
        changed[place] ^= 1 << draw.randrange(8)
        return bytes(changed)
    return {"empty": b"", "swapped": draw.choice(others).read_bytes()}.get(kind, kind.encode())


def test_any_file_that_a_job_reads_back_is_refused_or_changes_nothing(study, tmp_path, monkeypatch, capsys):
    """Each command of each rule, as Snakemake would call it, with one file of those damaged that it is seen to open.

    Refused: exit code 1, and a message with the file's name or its folder. Else all that it makes has the same bytes.
    """
    subprocess.run(["cp", "-a", f"{study}/.", tmp_path], check=True)
    printed = snakemake(tmp_path, "report", "--dry-run", "--forceall", "--printshellcmds")[1]
    commands = [
        shlex.split(found)[1:] for found in re.findall(r"exec (cifar-report (?!keep-)[a-z]+-[^>;\n]*) >", printed)
    ]
    assert len({command[0] for command in commands}) > 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "die_with_parent", lambda: None)
    results = Path("results")

    def run(command):
        code = cli.main(command)
        return code, capsys.readouterr().err

    cases = []
    for command in commands:
        READ.clear()
        HOOKED.append(True)
        assert run(command)[0] == 0, command
        HOOKED.clear()
        opened = {Path(name).absolute() for name in READ}
        opened |= {path.with_name("model.safetensors") for path in opened if path.name == "test-logits.npy"}
        files = {path.relative_to(tmp_path) for path in opened if path.is_relative_to(tmp_path / results)}
        logs = {path for path in files if path.suffix in (".log", ".tmp") or path.name == "lock"}
        cases += [(command, path) for path in sorted(files - logs) if path.is_file()]
    draw, told, wrong = random.Random(0), Counter(), []
    whole = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    slow = {"draw-figures": 20, "measure-shifts": 5, "measure-flips": 5, "check-equations": 20}
    weights = [1 / slow.get(command[0], 1) for command, _ in cases]
    for command, path in draw.choices(cases, weights, k=DAMAGES):
        content = damaged(draw, whole[path], [other for other in whole if other.suffix == path.suffix])
        path.write_bytes(content)
        code, message = run(command)
        path.write_bytes(whole[path])
        changed = [name for name, before in whole.items() if name.read_bytes() != before]
        for name in changed:
            name.write_bytes(whole[name])
        by_name = path.name in message or str(path.parent) in message
        outcome = (
            "changed" if changed else "same bytes" if not code else "refused" if code == 1 and by_name else "unnamed"
        )
        told[outcome] += 1
        if outcome in ("changed", "unnamed"):
            wrong.append((command, path, content[:80], code, message, changed))
    with capsys.disabled():
        print(f"\ndamaged files {dict(told)}, {len(cases)} pairs of a command and a file that it reads")
    assert not wrong
    assert told["refused"] > DAMAGES // 2
