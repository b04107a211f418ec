"""The API, asked with whatever its own description allows, and with what it does not: never a fault of the server."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from serve.library.library import Library
from tests.serve import tiny
from tests.serve.live import Live, live

OPERATIONS = 34


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Live]:
    tiny.picture(tmp_path / "media" / "a.png", 1)
    tiny.clip(tmp_path / "media" / "b.mp4")
    (tmp_path / "media" / "a.png.json").write_text('{"caption": "a boat", "camera": "X100"}')
    with Library.open(tmp_path / "library", tiny.seven()) as library:
        library.index(tmp_path / "media")
        with live(library) as served:
            yield served


def fuzz(running: Live, examples: int) -> Counter[int]:
    """Asks each operation `examples` times as described, and as often otherwise -> answers by status."""
    schema = schemathesis.openapi.from_url(f"{running.address}/v1/openapi.json")
    session = requests.Session()
    statuses: Counter[int] = Counter()
    asked: Counter[str] = Counter()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                answer = case.call(session=session, timeout=60)
                statuses[answer.status_code] += 1
                asked[operation.label] += 1  # noqa: B023
                case.validate_response(
                    answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
                )

            # What has neither parameters nor a body cannot be asked otherwise than described.
            with contextlib.suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
                ask()
    session.close()
    assert len(asked) == OPERATIONS, asked
    assert not [status for status in statuses if status >= 500], statuses
    assert running.http.post("/v1/embeddings", json={"input": "a dog"}).status_code == 200
    return statuses


def test_two_hundred_cases(running: Live) -> None:
    assert fuzz(running, 10).total() >= 150


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_cases(running: Live) -> None:
    statuses = fuzz(running, 200)
    print(dict(statuses))
    assert statuses.total() >= 2000


def test_a_fault_would_be_found(running: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.service, "search", None)
    with pytest.raises(FailureGroup, match="Schemathesis found"):
        fuzz(running, 10)
