"""From facts to what a reader sees: numbers, tables, figures, pages."""
