"""From finished runs to numbers and verdicts: summary, selection, claims. Each quantity is computed once, here."""
