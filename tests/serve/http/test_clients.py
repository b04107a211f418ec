"""OpenAI's requests as its clients write them, and the clients that people build on, against a running server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from serve.engine.jobs import Busy
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.live import Live, live

TEXTS = ["a dog", "rain on a roof", "a red car"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    model = tiny.model()
    model.description = model.description.model_copy(update={"shorter": (16, 8)})
    folder = tmp_path_factory.mktemp("clients")
    with Library.open(folder / "library", model) as library, live(library, Settings(port=0, max_terms=64)) as running:
        yield running


@pytest.fixture
def expected(served: Live) -> np.ndarray:
    return served.service.model.embed(TEXTS, modality="text").vectors


def test_an_encoding_format_of_null_means_numbers(served: Live, expected: np.ndarray) -> None:
    body = {"input": TEXTS, "model": "tiny-0", "encoding_format": None, "dimensions": None, "user": None}
    answer = served.http.post("/v1/embeddings", json=body).json()
    np.testing.assert_allclose([row["embedding"] for row in answer["data"]], expected, atol=1e-5)


def test_2048_texts_are_split_inside(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {number}" for number in range(2048)]
    wanted = served.service.model.embed(texts, modality="text").vectors
    pieces: list[int] = []
    embed = served.service.embed

    async def noted(terms, **named):  # type: ignore[no-untyped-def]
        pieces.append(len(terms))
        if len(pieces) == 3:  # the server was full for a moment
            raise Busy(0)
        return await embed(terms, **named)

    monkeypatch.setattr(served.service, "embed", noted)
    client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)
    told = client.embeddings.create(model="tiny-0", input=texts)
    np.testing.assert_allclose([row.embedding for row in told.data], wanted, atol=1e-5)
    assert pieces == [64] * 33
    assert [row.index for row in told.data] == list(range(2048))
    answer = served.http.post("/v1/embeddings", json={"input": ["x"] * 2049})
    assert answer.status_code == 400 and "2048" in answer.json()["error"]["message"]
    # Compositions count as what they are made of.
    many = [{"terms": [{"text": "a"}] * 3}] * 700
    assert served.http.post("/v1/embeddings", json={"input": many}).status_code == 413


def test_the_place_of_a_bad_text_is_that_in_the_whole_request(served: Live) -> None:
    content = json.dumps({"input": ["a"] * 100 + ["\ud800"]})
    answer = served.http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "input[100]"


def test_dimensions_of_the_model_are_served_and_others_refused(served: Live, expected: np.ndarray) -> None:
    for length in (16, 8):
        for encoding in ("float", "base64"):
            body = {"input": TEXTS, "dimensions": length, "encoding_format": encoding}
            answer = served.http.post("/v1/embeddings", json=body).json()
            rows = [row["embedding"] for row in answer["data"]]
            if encoding == "base64":
                rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
            front = expected[:, :length]
            np.testing.assert_allclose(rows, front / np.linalg.norm(front, axis=1, keepdims=True), atol=1e-5)
            assert answer["space"] == f"{served.service.model.space}:{length}"
    whole = served.http.post("/v1/embeddings", json={"input": TEXTS, "dimensions": tiny.DIM}).json()
    assert whole["space"] == served.service.model.space
    refused = served.http.post("/v1/embeddings", json={"input": TEXTS, "dimensions": 10})
    assert refused.status_code == 400
    assert refused.json()["error"] == {
        "message": f"expected 8, 16, {tiny.DIM}, the dimensions of tiny-0, got 10",
        "type": "invalid_request_error", "param": "dimensions", "code": "bad_dimensions",
    }  # fmt: skip
    (told,) = served.http.get("/v1/models").json()["data"]
    assert told["shorter_dimensions"] == [16, 8]


def test_a_model_that_cannot_be_cut_says_why(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", tiny.model()) as library, live(library) as running:
        answer = running.http.post("/v1/embeddings", json={"input": "x", "dimensions": 16})
    assert answer.status_code == 400
    assert "directions do not stand in the order" in answer.json()["error"]["message"]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_tokens_are_refused_with_the_setting_to_change(served: Live, tokens: list[object]) -> None:
    answer = served.http.post("/v1/embeddings", json={"input": tokens})
    assert answer.status_code == 400
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "input"


@pytest.mark.slow  # it takes seconds to import
def test_langchain(served: Live, expected: np.ndarray) -> None:
    from langchain_openai import OpenAIEmbeddings

    client = OpenAIEmbeddings(
        model="tiny-0",
        base_url=f"{served.address}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
        max_retries=0,
        chunk_size=2048,
    )
    np.testing.assert_allclose(client.embed_documents(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(client.embed_query(TEXTS[0]), expected[0], atol=1e-5)
    shorter = client.model_copy(update={"dimensions": 8})
    assert np.shape(shorter.embed_documents(TEXTS)) == (3, 8)


@pytest.mark.slow  # it takes seconds to import
def test_llama_index(served: Live, expected: np.ndarray) -> None:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    client = OpenAILikeEmbedding(
        model_name="tiny-0", api_base=f"{served.address}/v1", api_key="none", embed_batch_size=2, max_retries=0
    )
    np.testing.assert_allclose(client.get_text_embedding_batch(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(client.get_query_embedding(TEXTS[1]), expected[1], atol=1e-5)


@pytest.mark.slow  # it takes seconds to import
def test_litellm(served: Live, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it asks the network for prices otherwise
    import litellm

    told = litellm.embedding(model="openai/tiny-0", input=TEXTS, api_base=f"{served.address}/v1", api_key="none")
    np.testing.assert_allclose([row["embedding"] for row in told.data], expected, atol=1e-5)
    asked = {"model": "openai/tiny-0", "input": TEXTS, "api_base": f"{served.address}/v1", "api_key": "none"}
    shorter = litellm.embedding(**asked, dimensions=8, allowed_openai_params=["dimensions"])
    assert np.shape([row["embedding"] for row in shorter.data]) == (3, 8)
