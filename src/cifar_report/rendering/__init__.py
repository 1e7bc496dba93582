"""From facts to what a reader sees: numbers in LaTeX, tables, figures, pages. Nothing is computed here."""
