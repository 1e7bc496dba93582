"""Draws docs/rulegraph.svg, Snakemake's own graph of the rules, and docs/dataflow.svg, what is made from what.

`make graphs`; needs Graphviz. Only edges that no longer way round implies are drawn. `tests/test_graphs.py` holds both
pictures against the workflow.
"""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

Edges = set[tuple[str, str]]


class Job(NamedTuple):
    """A job of the demo's report. Files are named from the study's folder, where they lie in it."""

    rule: str
    inputs: list[str]
    outputs: list[str]
    wildcards: dict[str, str]


STYLE = """
  bgcolor=transparent; rankdir={direction}; nodesep=0.18; ranksep={gap}; pad=0.1;
  node [shape=box, style="rounded,filled", fontname="Helvetica,Arial,sans-serif", fontsize=12, margin="0.12,0.06",
        height=0.3, color="#64748b", fillcolor="#e2e8f0", fontcolor="#0f172a", penwidth=1];
  edge [color="#8593a8", arrowsize=0.6, penwidth=1.2];
"""  # edges are seen on white and on black, and the text stands on its own ground
COLOURS = {"data": "#bae6fd", "training": "#fde68a", "analysis": "#bbf7d0", "report": "#fbcfe8"}
KINDS = {
    "data": {"prepare_dataset"},
    "training": {"train_variant", "train_trial", "search_halving", "select_trial"},
    "report": {"check_equations", "write_tables", "write_pages", "render_report", "render_html", "report", "all"},
}


def snakemake(*arguments: str) -> str:
    """What Snakemake says of the demo's report."""
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo.yaml", *arguments, "--", "report"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rulegraph(*arguments: str) -> Edges:
    """Who is read by whom."""
    dot = snakemake(*arguments, "--rulegraph")
    names = dict(re.findall(r'^\t(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    return {(names[a], names[b]) for a, b in re.findall(r"^\t(\d+) -> (\d+)$", dot, re.MULTILINE)}


@cache
def jobs() -> list[Job]:
    """All jobs, those that write TensorBoard files among them, as a dry run lists them."""
    found = []
    for block in re.split(
        r"^(?:local)?rule ", snakemake("--dry-run", "--forceall", "--config", "tensorboard=True"), flags=re.MULTILINE
    )[1:]:
        listed = dict(re.findall(r"^    (input|output|wildcards): (.*)$", block, re.MULTILINE))
        if "output" in listed:
            files = (listed[key].replace("results/demo/", "").split(", ") for key in ("input", "output"))
            wildcards = dict(part.split("=") for part in listed.get("wildcards", "").split(", ") if part)
            found.append(Job(block.partition(":")[0], *files, wildcards))
    return found


def dataflow() -> Edges:
    """Which files are made from which, by the rules that make them; `config.yaml` and `report/` are the sources."""
    makers = {output: job.rule for job in jobs() for output in job.outputs}
    edges = set()
    for job in jobs():
        for file in job.inputs:
            if file in makers:
                edges.add((makers[file], job.rule))
            elif file.startswith("plan/"):
                edges.add(("config.yaml", job.rule))
            elif file.startswith(("report/", "tests/")):
                edges.add((file.partition("/")[0] + "/", job.rule))
    return edges


def reduced(edges: Edges) -> Edges:
    """The edges without those that a longer way implies."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reached(node: str) -> set[str]:
        found = set(after.get(node, ()))
        for other in after.get(node, ()):
            found |= reached(other)
        return found

    return {(a, b) for a, b in edges if not any(b in reached(other) for other in after[a] - {b})}


def files(rule: str) -> str:
    """What a rule makes, in a few words: files, or the folders of several; <wildcard> for what stands in a name."""
    job = next((job for job in jobs() if job.rule == rule), None)
    if job is None:
        return rule
    outputs = job.outputs
    for name, value in job.wildcards.items():
        outputs = [re.sub(rf"(?<=[/-]){value}(?=[/.])", f"<{name}>", output) for output in outputs]
    if len(outputs) == 1:
        return outputs[0]
    depth = None if job.wildcards else 1  # of the folders that are told
    places = dict.fromkeys("/".join(o.split("/")[:-1][:depth]) + "/" if "/" in o else o for o in outputs)
    return "\\n".join(places)


def colour(rule: str) -> str:
    return COLOURS[next((kind for kind, rules in KINDS.items() if rule in rules), "analysis")]


def svg(edges: Edges, direction: str, gap: float, labels: dict[str, str]) -> str:
    """The picture, as Graphviz lays it out."""
    nodes = sorted({node for edge in edges for node in edge})
    rules = {job.rule for job in jobs()}
    lines = [STYLE.format(direction=direction, gap=gap)]
    for node in nodes:
        look = f'fillcolor="{colour(node)}"' if node in rules else 'style=filled, fillcolor="#f1f5f9"'
        lines.append(f'"{node}" [label="{labels.get(node, node)}", {look}];')
    lines += [f'"{a}" -> "{b}";' for a, b in sorted(edges)]
    dot = "digraph workflow {" + "\n".join(lines) + "}"
    return subprocess.run(["dot", "-Tsvg"], input=dot, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    if not shutil.which("dot"):
        sys.exit("dot: not found; it comes with Graphviz (Debian and Ubuntu: apt install graphviz)")
    docs = Path("docs")
    docs.joinpath("rulegraph.svg").write_text(svg(reduced(rulegraph()), "TB", 0.28, {}))
    flow = reduced(dataflow())
    labels = {node: files(node) for edge in flow for node in edge}
    docs.joinpath("dataflow.svg").write_text(svg(flow, "LR", 0.35, labels))
