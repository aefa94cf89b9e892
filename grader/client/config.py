"""Which servers, with which key, by which limits: what both clients are made with, checked."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from grader.client.steps import Head, Lost, Send
from grader.errors import InputError
from grader.version import __version__

Urls = str | Sequence[str]

# A peer that vanished without a word is noticed after about two minutes, however long an answer may take.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Wall-clock seconds: to connect, to send a piece of a request, and of silence before the next piece of an answer.

    Silence is not an error as long as programs are being graded: ``read_s`` is the last resort.
    """

    connect_s: float = 10.0
    write_s: float = 60.0
    read_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a client needs to talk to its servers. The API key is left out of what is shown of it."""

    urls: tuple[str, ...]
    timeouts: Timeouts
    api_key: str | None = field(repr=False)

    def http_options(self) -> dict[str, Any]:
        """Return the arguments that ``httpx.Client`` and ``httpx.AsyncClient`` have in common."""
        headers = {"User-Agent": f"grader-client/{__version__}"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        times = self.timeouts
        return {
            "headers": headers,
            "timeout": httpx.Timeout(
                connect=times.connect_s, write=times.write_s, read=times.read_s, pool=None
            ),
        }


def make_config(url: Urls | None, api_key: str | None, timeouts: Timeouts | None) -> Config:
    """Check what a client was given, and take what it was not from ``GRADER_URL`` and ``GRADER_API_KEY``.

    ``GRADER_URL`` may name several servers, with commas between them. Raises InputError.
    """
    given = url if url is not None else os.environ.get("GRADER_URL", "")
    names = given.split(",") if isinstance(given, str) else list(given)
    urls = tuple(dict.fromkeys(_checked_url(name.strip()) for name in names if name.strip()))
    if not urls:
        raise InputError("no server is given; set GRADER_URL, e.g. to http://127.0.0.1:8000, or give url=")
    key = api_key if api_key is not None else os.environ.get("GRADER_API_KEY")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError("the API key has characters that no key has, e.g. a space or a line's end")
    return Config(urls=urls, timeouts=timeouts or Timeouts(), api_key=key or None)


def transport_options() -> dict[str, Any]:
    """Return the arguments that httpx's two transports have in common."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    return {"limits": limits, "socket_options": _socket_options()}


def goes_direct() -> bool:
    """Whether the environment names no proxy. httpx looks for one only where it makes the transport itself."""
    return not {"http", "https", "all"} & urllib.request.getproxies().keys()


def request_for(http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    """Make httpx's form of a request."""
    request = send.request
    return http.build_request(
        request.method, send.server + request.path, content=request.body, headers=dict(request.headers)
    )


def head_of(response: httpx.Response) -> Head:
    """Return the part of an answer that decisions are made by."""
    return Head(response.status_code, {name.lower(): value for name, value in response.headers.items()})


def lost(error: httpx.RequestError) -> Lost:
    """Say in one line how a connection failed."""
    return Lost(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"the server's URL {url!a} is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(
            f"the server's URL {url!a} has no scheme and host; give one like http://127.0.0.1:8000"
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise InputError(
            "the server's URL has a password, query or fragment; give it without, and a key as api_key="
        )
    return url.rstrip("/")


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS has no TCP_KEEPIDLE
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
