"""A schema registry over HTTP: the two calls for reading and writing, without another library.

It works with any registry that has Confluent's interface. Error messages never contain credentials.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from sessionize.connectors.shown_settings import address_shown
from sessionize.errors import ConfigError, InputError, SessionizeError, UnavailableError

_NOT_FOUND = 404
_DENIED = (401, 403)
_SERVER_FAULT = 500
_DEPTH_MAX = 20


class SchemaRegistry:
    """Schemas by id."""

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """url: http or https, without credentials. Errors: ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                "invalid address of the schema registry",
                detail=f"{parts.scheme}://{parts.hostname}",
                hint="https://host:port, without user and password",
            )
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if user is not None:
            token = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if ca_file is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
        self._open = urllib.request.build_opener(*handlers).open

    def schema(self, number: int) -> list[str] | None:
        """The texts of the schemas that a schema refers to, then its own; None if the id does not exist.

        Errors: UnavailableError, InputError if access is refused or the response is invalid.
        """
        answer = self._call(f"/schemas/ids/{number}")
        return None if answer is None else self._with_references(answer, 0)

    def register(self, subject: str, schema: str) -> int:
        """Register a schema under the subject; returns its id. Errors: those of schema."""
        answer = self._call(f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema})
        if answer is None or not isinstance(answer.get("id"), int):
            raise self._invalid_response(f"subject {subject!r}")
        return int(answer["id"])

    def _with_references(self, answer: dict[str, Any], depth: int) -> list[str]:
        if not isinstance(answer.get("schema"), str) or depth > _DEPTH_MAX:
            raise self._invalid_response("a schema")
        texts: list[str] = []
        for reference in answer.get("references") or []:
            path = f"/subjects/{quote(str(reference['subject']), safe='')}/versions/{int(reference['version'])}"
            found = self._call(path)
            if found is None:
                raise self._invalid_response(f"the reference to {reference['subject']!r}")
            texts += [text for text in self._with_references(found, depth + 1) if text not in texts]
        return [*texts, answer["schema"]]

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data=data, headers=headers)
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                return None
            raise self._rejection(error.code, path) from None
        except (OSError, TimeoutError) as error:
            raise UnavailableError(
                "the schema registry cannot be reached",
                detail=f"{address_shown(self._url)}: {error}",
                hint="check that it runs, and its address",
            ) from None
        except ValueError:
            raise self._invalid_response(path) from None
        if not isinstance(answer, dict):
            raise self._invalid_response(path)
        return answer

    def _rejection(self, code: int, path: str) -> SessionizeError:
        detail = f"{address_shown(self._url)}{path}: status {code}"
        if code in _DENIED:
            return InputError("the schema registry refuses access", detail=detail, hint="check user and password")
        if code >= _SERVER_FAULT:
            return UnavailableError("the schema registry is unavailable", detail=detail)
        return InputError("the schema registry rejects the request", detail=detail)

    def _invalid_response(self, what: str) -> InputError:
        return InputError(
            "invalid response of the schema registry",
            detail=f"{address_shown(self._url)}: {what}",
            hint="check that this is the address of a schema registry",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Credentials go only to the registry's own address."""

    def redirect_request(self, *_: object) -> None:
        """Makes a redirect an error."""
