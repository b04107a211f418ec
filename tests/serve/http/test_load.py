"""64 clients at once for a minute, on the default model, with and without batching."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.library.library import Library
from tests.serve.load import in_turns

CLIENTS = 64


@pytest.mark.slow
def test_a_minute_of_load(tmp_path: Path) -> None:
    Library.open(tmp_path / "library", "small").close()
    alone, together = in_turns(tmp_path / "library", CLIENTS, 60.0, turns=6)
    ratio = together.per_second / alone.per_second
    p50, p99 = (round(1000 * together.quantile_s(share)) for share in (0.5, 0.99))
    growth = together.growth()
    print(
        f"{together.per_second:.0f}/s, p50 {p50} ms, p99 {p99} ms, x {ratio:.2f} of batches of 1, memory x {growth:.3f}"
    )
    for load in (alone, together):
        assert set(load.statuses) <= {200, 429}, load.statuses
    assert together.statuses[200] > 1000
    assert ratio >= 2.0
    assert growth < 1.05
