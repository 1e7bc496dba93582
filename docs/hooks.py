"""What MkDocs does here besides rendering: pages that are made from the code, and links that lead out of docs/."""

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from cifar_report import cli
from cifar_report.study.document import schema
from cifar_report.study.settings import NEUTRAL

ROOT = Path(__file__).parent.parent
SCHEMA = "workflow/schemas/config.schema.yaml"
CONFIGURATION = f"""# Configuration

Every key that a study may set, from [`{SCHEMA}`](../{SCHEMA}). A study is `config.yaml` and any
overlays, as in `snakemake --configfile config/demo.yaml mine.yaml -- all`: mappings are merged key by key, a list
replaces a list. A key that is not here, or a value that cannot be, is refused by a message before anything starts.
`<name>` stands for a name of your own, `[]` for each item of a list.

"""
COMMANDS = """# Commands

## make

"""
FOR_YOU = """
## cifar-report: for you

The environment must be active (`source .venv/bin/activate`). Each command prints its help with `--help`. Where the
input is wrong, a message says what was expected and the exit code is 1.

"""
FOR_RULES = """
## cifar-report: for the rules of the workflow

One for each rule; the rules call them with the paths that they need.

"""


def on_files(files, config):
    """Adds the pages that are made from the code."""
    for name, content in (("configuration.md", configuration()), ("commands.md", commands())):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside docs/ lead to the repository where mkdocs.yml names one, else they become plain text."""
    if page.file.src_uri == "mutants.md":
        page.meta["search"] = {"exclude": True}  # hundreds of rows of code

    def link(found: re.Match) -> str:
        text, path = found.groups()
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri}: links to {path}, which the repository does not have")
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path})" if config.repo_url else text

    return re.sub(r"\[([^\]]*)\]\(\.\./([^)#\s]+)[^)]*\)", link, markdown)


def configuration() -> str:
    """The page of all keys of the configuration: a table for each mapping."""
    whole = schema()
    settings = whole["properties"]["defaults"]["properties"]
    parts = []
    for name, mapping in _mappings(whole, ""):
        rows = []
        for key, value in mapping["properties"].items():
            if name != "defaults" and value == settings.get(key):
                continue  # a variant takes every setting, which are listed once
            if "description" not in value:
                raise PluginError(f"{SCHEMA}: {name}.{key} has no description; write what it means")
            given = "required" if key in mapping.get("required", ()) else ""
            if name == "defaults":
                given = f"`{_yaml(NEUTRAL[key])}`" if key in NEUTRAL else "required"
            elif "default" in value:
                given = f"`{_yaml(value['default'])}`"
            rows.append((f"`{key}`", _values(value), given, _text(value["description"])))
        about = f"{_text(mapping['description'].rstrip('.'))}.\n\n" if name else ""
        parts.append(
            f"## {f'`{name}`' if name else 'The study'}\n\n{about}" + _table("key values default meaning", rows)
        )
    return CONFIGURATION + "\n".join(parts)


def _mappings(schema: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with fixed keys, with its place in a file: `<name>` for a name of one's own, `[]` in a list."""
    properties = dict(schema.get("properties", {}))
    required = list(schema.get("required", ()))
    for case in schema.get("oneOf", ()):
        source = case["properties"]["source"]
        known = properties.setdefault("source", {"enum": [], "description": []})
        known["enum"].append(source["const"])
        known["description"].append(f"{source['const']}: {source['description']}")
        for key, value in case["properties"].items():
            about = f"with `source: {source['const']}`: {value['description']}"
            properties.setdefault(key, value | {"description": about})
        required = ["source"]
    if "oneOf" in schema:
        properties["source"]["description"] = "; ".join(properties["source"]["description"])
    if properties:
        yield name, schema | {"properties": properties, "required": required}
    for key, value in properties.items():
        yield from _mappings(value, f"{name}.{key}".lstrip("."))
    about = {"description": schema["description"]} if "description" in schema else {}
    for key, suffix in (("additionalProperties", ".<name>"), ("items", "[]")):
        if isinstance(schema.get(key), dict):
            yield from _mappings(about | schema[key], f"{name}{suffix}")


def _values(schema: dict[str, Any]) -> str:
    """What a key may hold, in words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if kinds == ["array"]:
        return f"list of: {_values(schema['items']) if schema['items'] else 'values of the setting'}"
    words = {"string": "text", "boolean": "true, false", "object": "mapping", "null": "null"}
    text = " or ".join(words.get(kind, kind) for kind in kinds)
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join([text, *(f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema)])


def commands() -> str:
    """The page of all commands: the Makefile's targets, and a table of options for each subcommand."""
    targets = re.findall(r"^([a-z-]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = set(
        re.findall(r"cifar-report ([a-z-]+)", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")))
    )
    subparsers = cli._parser()[1]
    parts = {True: "", False: ""}
    for name, parser in subparsers.items():
        parts[name in called] += f"### {name}\n\n{inspect.cleandoc(parser.description)}\n\n" + _options(parser)
    rows = [(f"`make {name}`", text) for name, text in targets]
    return COMMANDS + _table("target what", rows) + FOR_YOU + parts[False] + FOR_RULES + parts[True]


def _options(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = action.option_strings[0] if action.option_strings else action.metavar or action.dest
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        about = _text(f"{action.help or ''}{choices}")
        told = action.default in (None, False) or "default" in about
        needed = "required" if action.required else "" if told else f"`{action.default}`"
        rows.append((f"`{name}`", needed, about))
    return _table("argument default meaning", rows) + "\n"


def _table(header: str, rows: list[tuple[str, ...]]) -> str:
    columns = header.split()
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(text: str) -> str:
    """With placeholders as code: Markdown would take them for HTML."""
    return re.sub(r"(?<!`)((?:[\w./*-]*<\w+>[\w./*<>-]*)+)", r"`\1`", text)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]
