"""Which characters the report can print, for whoever takes a text in before anything is trained."""

import re
import unicodedata

# Besides ASCII, what Latin Modern has in the encodings T1 and TS1; and as `report/letters.tex` has them, the letters of
# modern Greek, and those of Russian, Ukrainian, Belarusian, Bulgarian, Serbian and Macedonian.
_PRINTED = re.compile(
    "[ -~\u00a0-\u00b7\u00b9-\u0125\u0128-\u0131\u0134-\u0137\u0139-\u013e\u0141-\u0148\u014a-\u0165\u0168-\u017e"
    "\u0218-\u021b–—‘’‚“”„†‡•…‰‹›€™"
    "\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce\u0401-\u040c\u040e-\u044f\u0451-\u045c\u045e\u045f\u0490\u0491]"
)
WRITE_OTHERWISE = "write it in the letters that docs/template.md lists"


def composed(text: str) -> str:
    """A text with each letter and its accents as one character, where Unicode has one."""
    return unicodedata.normalize("NFC", text)


def is_printed(character: str) -> bool:
    """Whether the report's fonts have it."""
    return _PRINTED.match(character) is not None


def not_printed(text: str) -> str:
    """The first character of a text that the report cannot print, with its code point; empty where it has all."""
    lacking = next((c for c in composed(text) if not is_printed(c)), "")
    return lacking and f"{lacking!r} (U+{ord(lacking):04X})"
