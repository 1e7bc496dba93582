"""The short form of simulate_verdicts.py: few studies a case, so that only gross errors of the rules show."""

import numpy as np
import pytest
from simulate_verdicts import ONE_SIDED, cases, normal, of_a_printed_run, rate, simulate

STUDIES = 400


def test_wrong_verdicts_are_as_rare_as_promised():
    allowed = 3.5 * np.sqrt(0.025 * 0.975 / STUDIES)
    for case in cases():
        assert rate(case, normal, [(5, 1.0)], STUDIES) < case.limit + allowed, case.name
    for name, value, limit in of_a_printed_run(5, normal, STUDIES):
        assert value < limit + allowed, name


def test_a_bound_is_where_a_single_part_errs_in_one_of_forty_studies():
    """Not more rarely either: the simulation sees the error that it looks for."""
    for case in cases():
        if len(case.truths) == 1 and not case.premise and case.limit == ONE_SIDED:
            assert rate(case, normal, [(5, 1.0)], 4 * STUDIES) == pytest.approx(0.025, abs=0.015), case.name


def test_rows_tell_their_limits():
    rows = simulate(2)
    assert len({row["name"] for row in rows}) == len(rows)
    assert {row["met"] for row in rows if "skewed" in row["name"] or "2 times" in row["name"]} == {None}
    assert all(row["met"] == (row["value"] <= row["limit"]) for row in rows if row["limit"])
