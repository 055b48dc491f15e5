"""The REST API as the command line calls it."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from control_plane.cli.failures import ApiError
from control_plane.config import Settings
from control_plane.errors import ConflictError, UnavailableError

TIMEOUT_S: Final = 60.0
SENDING_TIMEOUT_S: Final = 600.0
"""For the answer to a sent file: the server may still be hashing and syncing it."""
Json = dict[str, Any]


class Client:
    """Calls the web process of this installation, as the user who runs the command."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.web_url
        self.actor = _actor()
        self._http = httpx.Client(
            base_url=f"{settings.web_url}/api/v1",
            headers={"x-signalbox-actor": self.actor},
            timeout=TIMEOUT_S,
            trust_env=False,  # loopback: never through a proxy
        )

    def get(self, path: str, **params: Any) -> Json:
        """GET; parameters that are None are left out."""
        return self._object("GET", path, params={k: v for k, v in params.items() if v is not None})

    def get_list(self, path: str) -> list[Json]:
        """GET something that is answered with a list."""
        items: list[Json] = self._call("GET", path).json()
        return items

    def get_text(self, path: str, **params: Any) -> str:
        """GET something that is answered with text."""
        return self._call("GET", path, params=params).text

    def get_bytes(self, path: str) -> bytes:
        """GET something that is answered with a file."""
        return self._call("GET", path).content

    def post(self, path: str, body: Json | None = None, *, timeout_s: float = TIMEOUT_S) -> Json:
        """POST a JSON body; timeout_s: how long the answer may take."""
        timeout = httpx.Timeout(TIMEOUT_S, read=timeout_s)
        return self._object("POST", path, json=body if body is not None else {}, timeout=timeout)

    def send(self, path: str, content: bytes, **params: Any) -> Json:
        """POST *content* as it is."""
        timeout = httpx.Timeout(TIMEOUT_S, read=SENDING_TIMEOUT_S)
        headers = {"content-type": "application/octet-stream"}
        return self._object("POST", path, params=params, content=content, headers=headers, timeout=timeout)

    def put(self, path: str, body: Json) -> Json:
        """PUT a JSON body."""
        return self._object("PUT", path, json=body)

    def tus(
        self, method: str, path: str, headers: Mapping[str, str], content: Iterable[bytes] | None = None
    ) -> Mapping[str, str]:
        """One request of the tus protocol; returns the answer's headers. Raises as `post` does."""
        timeout = httpx.Timeout(TIMEOUT_S, read=SENDING_TIMEOUT_S)
        sent = {"tus-resumable": "1.0.0", **headers}
        return self._call(method, path, headers=sent, content=content, timeout=timeout).headers

    def delete(self, path: str) -> Json:
        """DELETE."""
        return self._object("DELETE", path)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _object(self, method: str, path: str, **request: Any) -> Json:
        answer = self._call(method, path, **request)
        body: Json = answer.json() if answer.content else {}
        return body

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Raises ApiError for an error answer, UnavailableError when there is none."""
        try:
            answer = self._http.request(method, path, **request)
        except httpx.LocalProtocolError as error:
            raise ConflictError(
                "the file changed while it was sent", next_step="Send it again when it is whole."
            ) from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"Signalbox does not answer at {self._url}: {str(error) or type(error).__name__}",
                next_step="Start it with `signalbox up`, or name its port with --web-port.",
            ) from error
        if answer.is_error:
            raise ApiError(answer.status_code, _error_of(answer))
        return answer


def part(text: str) -> str:
    """*text* as one segment of a path."""
    return quote(text, safe="")


def _error_of(answer: httpx.Response) -> Json:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {
            "message": f"{answer.request.url} answered {answer.status_code}, and not in Signalbox's way",
            "next_step": "See whether another program listens on that port.",
        }
    return error if isinstance(error, dict) else {"message": str(error)}


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"
