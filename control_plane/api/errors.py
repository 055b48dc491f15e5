"""Error answers: {"error": {"code", "message", "next_step", "details"}}, with the HTTP status of the code."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from control_plane.api.encoding import Json
from control_plane.errors import SignalboxError

log = logging.getLogger(__name__)

_CODES: Final[Mapping[int, str]] = {
    400: "invalid_input", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
}  # fmt: skip
"""Codes of answers that no SignalboxError stands behind."""


def answer(
    status: int,
    code: str,
    message: str,
    *,
    next_step: str | None = None,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Json:
    """One error in the shape that every error has."""
    body = {"code": code, "message": message, "next_step": next_step, "details": dict(details or {})}
    return Json({"error": body}, status_code=status, headers=dict(headers) if headers else None)


def of_status(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> Json:
    """An error known by its HTTP status alone."""
    return answer(status, _CODES.get(status, "error"), message, headers=headers)


def of_error(error: SignalboxError) -> Json:
    """An expected error."""
    retry = {"Retry-After": "1"} if error.http_status == 503 else None
    return answer(
        error.http_status,
        error.code,
        error.message,
        next_step=error.next_step,
        details=error.details,
        headers=retry,
    )


def install(api: FastAPI) -> None:
    """Have *api* answer every error in our shape."""
    api.add_exception_handler(SignalboxError, _expected)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(StarletteHTTPException, _http)
    api.add_exception_handler(Exception, _unexpected)


def unexpected(error: Exception, what: str) -> Json:
    """Log *error* under a fresh id and answer with nothing but that id."""
    error_id = uuid.uuid4().hex[:12]
    log.error("error %s at %s", error_id, what, exc_info=error)
    return answer(
        500,
        "internal",
        "Something went wrong on our side",
        next_step=f"Look for error {error_id} in the log of the web process.",
        details={"error_id": error_id},
    )


async def _expected(_request: Request, error: Exception) -> Json:
    if not isinstance(error, SignalboxError):
        raise TypeError(type(error).__name__)
    return of_error(error)


async def _invalid(_request: Request, error: Exception) -> Json:
    if not isinstance(error, RequestValidationError):
        raise TypeError(type(error).__name__)
    problems = [_problem(each) for each in error.errors()]
    return answer(400, "invalid_input", "; ".join(problems[:5]), details={"problems": problems[:50]})


async def _http(_request: Request, error: Exception) -> Json:
    if not isinstance(error, HTTPException | StarletteHTTPException):
        raise TypeError(type(error).__name__)
    return of_status(error.status_code, str(error.detail), headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Json:
    return unexpected(error, f"{request.method} {request.url.path}")


def _problem(each: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in each["loc"] if part != "body")
    return f"{place}: {each['msg']}" if place else str(each["msg"])
