"""Examples of request bodies in the OpenAPI description; a test sends each of them."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, dict[str, Any]] = {
    "EmbeddingsRequest": {
        "texts": {"summary": "Two texts", "value": {"input": ["a dog", "rain on a roof"]}},
        "base64": {
            "summary": "One text, as OpenAI's client asks for it",
            "value": {"input": "a dog", "encoding_format": "base64"},
        },
        "sum": {
            "summary": "A weighted sum, which is one embedding",
            "value": {"input": [{"terms": [{"text": "a dog"}, {"text": "indoors", "weight": -0.5}]}]},
        },
    },
    "SearchRequest": {
        "words": {
            "summary": "Pictures that words describe",
            "value": {"query": "a dog", "want": ["image"], "where": "size_bytes > 1000", "k": 5},
        },
        "terms": {
            "summary": "Words with weights",
            "value": {"terms": [{"text": "a dog"}, {"text": "snow", "weight": 0.5}]},
        },
    },
}
"""Body -> its examples, which a test sends to a server."""
EXAMPLES["LocateRequest"] = {
    "words": {
        "summary": "Where the picture of an item shows a dog",
        "value": {"picture": {"item": 1}, "query": "a dog"},
    }
}
EXAMPLES["MarksRequest"] = {
    "favourite": {"summary": "The file of an item is a favourite", "value": {"ids": [1], "favourite": True}}
}
EXAMPLES["AlbumRequest"] = {
    "list": {"summary": "A list of files", "value": {"name": "the best", "ids": [1]}},
    "filter": {"summary": "A saved filter", "value": {"name": "large", "where": "size_bytes > 1000000"}},
    "query": {"summary": "A saved query", "value": {"name": "dogs", "query": "a dog"}},
}
EXAMPLES["AlbumChange"] = {"add": {"summary": "One file more", "value": {"add": [1]}}}
EXAMPLES["FolderRequest"] = {"folder": {"summary": "A folder of the server", "value": {"path": "/srv/photos"}}}
EXAMPLES["TagsRequest"] = {"words": {"summary": "Two words", "value": {"words": ["dog", "a red car"]}}}
EXAMPLES["MomentsRequest"] = {
    "words": {
        "summary": "The first stretch of a film that words describe",
        "value": {"query": "people riding bicycles", "which": "first"},
    }
}
