"""A parser of JSON bodies with a bounded number of values."""

from __future__ import annotations

import json
from typing import Any

from serve.http.errors import RequestError

MAX_JSON_VALUES = 100_000
"""The largest number of values of a JSON body.

A value takes far more memory than its bytes, and may cause an error message of its own.
"""
_MARKS = (b",", b"[", b"{")
"""What comes before a value in JSON, so that their number bounds the number of values before anything is parsed."""
_JSON_BLOCK_BYTES = 2**18
"""Bytes of a body that are looked at in one go; the scan of a block takes under a millisecond."""


def read_json(body: bytes, most_values: int = MAX_JSON_VALUES) -> Any:
    """The value of a JSON body. Raises RequestError; for too many values it does so before they take any memory."""
    if _has_more_values(body, most_values):
        raise RequestError(413, "too_many", f"expected at most {most_values:,} values in a JSON body")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "bad_json", f"the body is not JSON: {reason}") from None


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more than `most` values, counted by the marks between them, one block of the body at a time.

    Other threads can run between two blocks.
    """
    if len(body) <= most:
        return False
    count, in_text, rest = 0, False, b""
    for start in range(0, len(body), _JSON_BLOCK_BYTES):
        block = rest + body[start : start + _JSON_BLOCK_BYTES]
        whole = block.rstrip(b"\\")  # a backslash at the end may belong to the next block
        rest = block[len(whole) :]
        parts = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        # commas inside of strings do not count
        count += sum(part.count(mark) for part in parts[in_text::2] for mark in _MARKS)
        in_text ^= len(parts) % 2 == 0
        if count > most:
            return True
    return False
