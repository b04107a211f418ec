"""Names of places, offline: a position -> the town it is in or nearest to. Needs the extra `places`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preprocess.extras import is_installed
from preprocess.metadata import cleaned


def place_of(facts: Mapping[str, Any]) -> str | None:
    """Metadata with a position -> `Budapest, Hungary`: town, state where it has another name, country.

    None without a position, and where the package `reverse-geocode` (GeoNames' towns, CC BY 4.0) is not installed.
    """
    latitude, longitude = facts.get("latitude"), facts.get("longitude")
    if latitude is None or longitude is None or not is_installed("reverse-geocode"):
        return None
    import reverse_geocode  # reads 3 MB of towns when it is first asked

    found = reverse_geocode.get((latitude, longitude))
    names = [cleaned(found.get(key)) for key in ("city", "state", "country")]
    return ", ".join(dict.fromkeys(name for name in names if name)) or None
