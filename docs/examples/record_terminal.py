"""What a terminal shows while a small study runs: recorded in a pseudo terminal, one moment of it drawn as an SVG.

    python docs/examples/record_terminal.py docs/terminal.svg

`make terminal` calls it. One of the study's variants cannot be trained, so that a failure is seen too.
"""

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import termios
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "reference", "environment.yml")
COLUMNS, ROWS = 124, 40
STUDY = {
    "study": "small",
    "seeds": [0, 1, 2],
    "run": ["mlp-numpy", "mlp-torch", "mlp-bn-torch"],
    "variants": {
        "mlp-numpy": {"steps": 1000, "evaluate_every": 100},
        "mlp-bn-torch": {"steps": 3000, "evaluate_every": 200, "batch_size": 100},
        "mlp-torch": {"batch_size": 5000, "seeds": [0]},
    },
    "search": {},
    "shifts": {"variants": ["mlp-bn-torch"], "images": 20},
}
COMMAND = "snakemake --cores 2 --keep-going --configfile config/demo.yaml small.yaml -- results/small/summary.csv"
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich would load them from the network


def record(command: list[str], folder: Path, columns: int = COLUMNS, rows: int = ROWS) -> tuple[str, int]:
    """Runs a command in a pseudo terminal; what it wrote there, and its exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CIFAR_REPORT_PLAIN")}
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment | {"PATH": path, "TERM": "xterm-256color", "COLUMNS": str(columns)})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's word for the end
            break
        if not part:
            break
        written += part
    return written.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def screens(written: str) -> list[list[str]]:
    """The lines of the terminal, colours included, each time that the display is about to be drawn anew.

    It knows the few codes that rich writes: a line is erased, the cursor goes up, and whole lines are written.
    """
    lines, at, found = [""], 0, []
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|\n|[^\x1b\r\n]+|\x1b", written):
        if token == "\x1b[2K":
            lines[at] = ""
        elif token == "\x1b[1A":
            at -= 1
        elif token in ("\r\n", "\n"):
            at += 1
            lines += [""] * (at == len(lines))
        elif token == "\r":
            found.append(list(lines))
        elif not token.startswith("\x1b[?"):
            lines[at] += token
    return [*found, lines]


def telling(lines: list[str]) -> tuple[int, ...]:
    """How much a screen shows: jobs in training, failures, jobs that have ended."""
    text = "\n".join(lines)
    return min(len(re.findall(r"images/s.* left", text)), 2), text.count("✗"), text.count("✓")


def draw(lines: list[str], path: Path) -> None:
    """Writes the screen as an SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=False)
    path.write_text(re.sub(r"terminal-\d+-", "t-", FONTS.sub("", console.export_svg(title="snakemake"))))


def copy_checkout(folder: Path) -> None:
    """Copies what a study needs of the repository."""
    for part in PARTS:
        make = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        make(ROOT / part, folder / part)


def main(path: Path) -> None:
    """Records the study in a folder of its own and draws its most telling moment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        (folder / "small.yaml").write_text(yaml.safe_dump(STUDY))
        written, _ = record(COMMAND.split(), folder)
    found = screens(written)
    best = max(map(telling, found))
    chosen = [screen for screen in found if telling(screen) == best]
    lines = [line for line in chosen[len(chosen) // 2] if line.strip() and "Using workflow specific" not in line]
    draw(lines, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
