"""The description of the API as a page for people: HTML without scripts, from this server alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The content security policy of the page: styles of its own, and nothing else."""
_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.1rem; overflow-wrap: anywhere } h2 b { margin-right: .5rem }
pre { padding: .75rem; overflow-x: auto; background: #8881 } table { border-collapse: collapse }
td, th { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0 } a { color: inherit }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
"""
"""The styles of the page, which has no script and loads nothing."""


def docs_page(schema: Mapping[str, Any], root: str) -> str:
    """An OpenAPI description -> a page that lists its operations, with their parameters, examples and answers."""
    info = schema["info"]
    keys = "Requests need a key: <code>Authorization: Bearer KEY</code>." if schema.get("security") else ""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta name="viewport" content="width=device-width"><title>{escape(info["title"])}: API</title>',
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info['description'])} {keys} Programs read <a href='{root}/v1/openapi.json'>openapi.json</a>.</p>",
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method.upper(), path, operation, root)
    return "".join([*parts, "</body></html>"])


def _operation(method: str, path: str, operation: Mapping[str, Any], root: str) -> Iterator[str]:
    yield f"<section><h2><b>{method}</b><code>{escape(root + path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>parameter</th><th>in</th><th>what it is</th></tr>"
        for one in parameters:
            words = one.get("description") or one["schema"].get("description", "")
            yield f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td><td>{escape(words)}</td></tr>"
        yield "</table>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = ", ".join(content["schema"].get("properties", {}))
        yield f"<p><code>{escape(kind)}</code>{': ' + escape(fields) if fields else ''}</p>"
        for example in content.get("examples", {}).values():
            yield f"<p>{escape(example['summary'])}</p><pre>{escape(json.dumps(example['value'], indent=2))}</pre>"
    good = {status: answer["description"] for status, answer in operation["responses"].items()}
    answers = "; ".join(f"{status} {escape(words)}" for status, words in good.items() if status < "400")
    yield f"<p>Answers: {answers}</p></section>"
