"""From runs to facts, each computed once."""
