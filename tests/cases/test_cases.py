"""Each case of public reports is right. Those of motion logs are tested with their values in `test_imu_layouts`."""

from __future__ import annotations

import pytest

from tests.cases import files, folders, table

assert files and folders  # they register their cases
CASES = {f"{one.part}: {one.name}": one for one in table.CASES if one.part != "5"}


@pytest.mark.parametrize("name", CASES)
def test_it_is_right(name: str) -> None:
    assert table.outcome(CASES[name]) == "right"


def test_a_case_that_is_not_right_is_told() -> None:
    def wrong(_: object) -> None:
        raise AssertionError("another thing")

    assert table.outcome(table.Case("4", "x", wrong)) == "wrong: another thing"
