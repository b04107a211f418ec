"""Errors of requests: one exception, and the answer to each exception of the packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from preprocess.source import MediaError
from serve.engine.jobs import Busy, LateError
from serve.engine.values import PictureError
from serve.http.guard import error_body
from serve.library.errors import LibraryError, UnknownItemError

_CODES = {404: "not_found", 405: "method_not_allowed"}
"""Status -> the `code` of an error that the framework itself raised."""


class RequestError(Exception):
    """A refused request: the status of its answer, a `code` for programs, a sentence for people, and the parameter."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


def invalid_request(errors: Any) -> RequestError:
    """pydantic's errors -> a `RequestError` about one of them: a list too long, else the deepest in the body."""
    worst = max(errors, key=lambda entry: (entry["type"] == "too_long", len(entry["loc"])))
    where = ".".join(str(part) for part in worst["loc"][:6])
    return RequestError(400, "invalid_request", f"{where or 'body'}: {worst['msg']}", where or None)


def handle_errors(app: FastAPI) -> None:
    """Registers the answer to every exception that a route may raise."""

    def answer(status: int, code: str, message: str, param: str | None = None, **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(error_body(status, code, message, param), status, names, "application/json")

    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        RequestError: lambda e: answer(e.status, e.code, e.message, e.param),
        Busy: lambda e: answer(429, "too_busy", str(e), retry_after=str(e.retry_after_s)),
        LateError: lambda e: answer(
            504, "too_late", "the answer was not there in time (deadline_s); send less at once"
        ),
        UnknownItemError: lambda e: answer(404, "unknown_item", str(e)),
        PictureError: lambda e: answer(404, "no_picture", str(e)),
        MediaError: lambda e: answer(422, "unusable_medium", e.reason),
        LibraryError: lambda e: answer(503, "library_error", "the library cannot be used at the moment"),
        HTTPException: lambda e: answer(
            e.status_code, _CODES.get(e.status_code, "http_error"), str(e.detail), **dict(e.headers or {})
        ),
        Exception: lambda e: answer(500, "internal_error", "this is a fault of the server; its log says more"),
        RequestValidationError: lambda e: answer(400, "invalid_request", invalid_request(e.errors()).message),
    }
    for kind, handler in handlers.items():

        async def handle(_: Request, error: Exception, handler: Callable[[Any], Response] = handler) -> Response:
            return handler(error)

        app.add_exception_handler(kind, handle)
