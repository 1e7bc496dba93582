"""Finds Snakemake's record of a file: it bears the file's name in base 64, cut in folders (`@…`) where that is long."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

LONGEST = 254  # characters of a part, besides its @


def place(name: str) -> Path:
    """Where the record of a file lies, below the folder of records."""
    encoded = urlsafe_b64encode(name.encode()).decode()
    *folders, last = (encoded[i : i + LONGEST] for i in range(0, len(encoded), LONGEST))
    return Path(*(f"@{part}" for part in folders), last)


def file_of(record: Path) -> str:
    """The file that a record is of, of a folder of records how their names begin; empty for what is neither."""
    encoded = "".join(part.removeprefix("@") for part in record.parts)
    try:
        return urlsafe_b64decode(encoded[: len(encoded) // 4 * 4]).decode(errors="replace")
    except ValueError:
        return ""
