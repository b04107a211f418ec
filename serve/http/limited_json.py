"""JSON of a request, read only where it has a bounded number of values."""

from __future__ import annotations

import json
from typing import Any

from serve.http.errors import RequestError

MAX_JSON_VALUES = 100_000
"""Values of a JSON body: each costs far more memory than its bytes, and an error message of its own."""
_MARKS = (b",", b"[", b"{")
_JSON_BLOCK_BYTES = 2**18


def read_json(body: bytes, most_values: int = MAX_JSON_VALUES) -> Any:
    """The value of a JSON body. Raises RequestError, for one of too many values before it costs any memory."""
    if _has_more_values(body, most_values):
        raise RequestError(413, "too_many", f"expected at most {most_values:,} values in a JSON body")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "bad_json", f"the body is not JSON: {reason}") from None


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more values than this, by the marks between them. In blocks, between which others may run."""
    if len(body) <= most:
        return False
    count, in_text, rest = 0, False, b""
    for start in range(0, len(body), _JSON_BLOCK_BYTES):
        block = rest + body[start : start + _JSON_BLOCK_BYTES]
        whole = block.rstrip(b"\\")  # a backslash at the end may belong to what comes next
        rest = block[len(whole) :]
        parts = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        count += sum(part.count(mark) for part in parts[in_text::2] for mark in _MARKS)  # in texts, a comma is none
        in_text ^= len(parts) % 2 == 0
        if count > most:
            return True
    return False
