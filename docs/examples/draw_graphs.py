"""Draws docs/rulegraph.svg, Snakemake's own graph of the rules, and docs/dataflow.svg, what is made from what.

`make graphs`; needs Graphviz. Only edges that no longer way round implies are drawn. `tests/test_graphs.py` holds both
pictures against the workflow.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cifar_report.inspection.explain import REPOSITORY, RULES

Edges = set[tuple[str, str]]

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


def rulegraph(*arguments: str) -> Edges:
    """Who is read by whom, as `snakemake --rulegraph` says of the demo's report."""
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo.yaml", *arguments]
    dot = subprocess.run([*command, "--rulegraph", "--", "report"], check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r'^\t(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    return {(names[a], names[b]) for a, b in re.findall(r"^\t(\d+) -> (\d+)$", dot, re.MULTILINE)}


def dataflow() -> Edges:
    """Which files are made from which, by the rules that make them; `config.yaml` and `report/` are the sources."""
    makers = {output: rule.name for rule in RULES for output in rule.outputs}
    makers |= {"search/{search}/{trial}/run.json": "train_trial", "{table_of_searches}": "tabulate_search"}
    makers |= {"{trials_of_search}": "search_halving", "search/{search_of_variant}/selected.yaml": "select_trial"}
    edges = set()
    for rule in RULES:
        for pattern in rule.inputs:
            file = re.sub(r"\{(?:shifted|flipped)\}", "{variant}", pattern)
            if file.startswith(REPOSITORY):
                source = file.removeprefix(REPOSITORY).partition("/")[0] + "/"
                if source in ("report/", "tests/"):
                    edges.add((source, rule.name))
            elif file.startswith("plan/"):
                edges.add(("config.yaml", rule.name))
            else:
                edges.add((makers[file], rule.name))
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
    """What a rule makes, in a few words: files, or the folders of several."""
    outputs = next((r.outputs for r in RULES if r.name == rule), [rule])
    if len(outputs) == 1:
        return _readable(outputs[0])
    places = dict.fromkeys(o.rpartition("/")[0] + "/" if "/" in o else o for o in outputs)
    folders = tuple(place for place in places if place.endswith("/"))
    shown = [p for p in places if not p.startswith(tuple(folder for folder in folders if folder != p))]
    return "\\n".join(map(_readable, shown))


def _readable(pattern: str) -> str:
    """A pattern of paths with <wildcard> for what stands in it."""
    return re.sub(r"\{(?:drawing_|its_)?(\w+)\}", r"<\1>", pattern)


def colour(rule: str) -> str:
    return COLOURS[next((kind for kind, rules in KINDS.items() if rule in rules), "analysis")]


def svg(edges: Edges, direction: str, gap: float, labels: dict[str, str]) -> str:
    """The picture, as Graphviz lays it out."""
    nodes = sorted({node for edge in edges for node in edge})
    rules = {rule.name for rule in RULES}
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
