"""The mean of an item's views: equal and unequal numbers of them, beside the sum written out."""

from __future__ import annotations

import pytest
import torch

from bind.model.pooling import mean_of_views


@pytest.mark.parametrize("counts", [[2, 2, 2], [1, 4, 1]])
def test_each_item_is_the_normalised_mean_of_its_own_views(counts: list[int]) -> None:
    views = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    found = mean_of_views(views, counts)
    first = 0
    for row, count in zip(found, counts, strict=True):
        total = views[first : first + count].sum(0)
        torch.testing.assert_close(row, total / total.norm())
        first += count


def test_no_items_have_no_rows() -> None:
    assert mean_of_views(torch.empty(0, 5), []).shape == (0, 5)
