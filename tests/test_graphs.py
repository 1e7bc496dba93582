"""The README's pictures of the workflow show the workflow as it is."""

import html
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS / "examples"))
import draw_graphs  # noqa: E402


@pytest.mark.parametrize("picture", ["rulegraph", "dataflow"])
def test_pictures_show_the_workflow_as_it_is(picture, monkeypatch):
    """Where they do not: make graphs."""
    monkeypatch.chdir(DOCS.parent)
    titles = re.findall(r"<title>(.+?)</title>", (DOCS / f"{picture}.svg").read_text())
    drawn = {tuple(html.unescape(title).split("->")) for title in titles if "&gt;" in title}
    assert drawn == draw_graphs.reduced(getattr(draw_graphs, picture)())
