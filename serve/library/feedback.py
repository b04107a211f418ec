"""Feedback on results: thumbs up and down move a query towards some items and away from others."""

from __future__ import annotations

from collections.abc import Sequence

from serve.engine.terms import Term

QUERY_WEIGHT, LIKED_WEIGHT, DISLIKED_WEIGHT = 1.0, 0.75, 0.15
"""The weights of Rocchio's formula (Manning, Raghavan, Schuetze: Introduction to Information Retrieval, 9.1.1)."""


def refined(terms: Sequence[Term], liked: Sequence[int], disliked: Sequence[int]) -> list[Term]:
    """A query and the ids of items with thumbs up and down -> the terms of the moved query.

    Rocchio's formula: the query + 0.75 x the mean of the liked items - 0.15 x the mean of the disliked ones. So each
    liked item is a term of weight 0.75 / their number. A query without terms is the liked items alone.

    Args:
        terms: The terms of the query as it was asked first.
        liked: Ids of the items that are right. A search does not find the files of these items again.
        disliked: Ids of the items that are wrong.

    Raises:
        ValueError: There is neither a term nor a liked item.

    Example:
        >>> [term.weight for term in refined([Term("a dog")], [3, 4], [7])]
        [1.0, 0.375, 0.375, -0.15]
    """
    if not terms and not liked:
        raise ValueError("expected a query, or an item that is right")
    moved = [Term(item, weight=LIKED_WEIGHT / len(liked)) for item in liked]
    moved += [Term(item, weight=-DISLIKED_WEIGHT / len(disliked)) for item in disliked]
    return [*terms, *moved]
