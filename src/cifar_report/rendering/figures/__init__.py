"""The figures of a study: drawn in one style, as PDF for LaTeX and SVG for the HTML report, the same bytes each time.

Matplotlib, pandas and SciPy are imported where they are used: reading the workflow asks for `names` alone, and needs
none of them.
"""

from cifar_report.rendering.figures.accuracy import comparison, curves, seed_curves
from cifar_report.rendering.figures.catalogue import names, write
from cifar_report.rendering.figures.style import BLUE, STYLE, VERMILLION, style

__all__ = ("BLUE", "STYLE", "VERMILLION", "comparison", "curves", "names", "seed_curves", "style", "write")
