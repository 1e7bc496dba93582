"""Where a number, table or figure comes from: the chain back to runs, settings, code, commit and data.

`RULES` says of each file of a study which rule makes it and from what. A test holds it against Snakemake's own plan.
"""

import difflib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cifar_report import figures, provenance
from cifar_report.config import Settings
from cifar_report.errors import InputError
from cifar_report.files import read_json
from cifar_report.latex import plain
from cifar_report.tables import TABLES, shortened

ARRAYS = {split: [f"dataset/{split}-{part}.npy" for part in ("images", "labels")] for split in provenance.SPLITS}
