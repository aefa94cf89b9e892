"""What the OpenAPI document says that FastAPI cannot know: bodies that we parse ourselves, and problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, get_type_hints

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from grader.server.auth import Caller
from grader.server.models import ProblemAnswer
from grader.server.problems import MEDIA_TYPE

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_REF = "#/components/schemas/{model}"

_MEANINGS = {
    400: "The body is damaged, or no JSON.",
    401: "An API key is needed, and there is none or one that is not known.",
    403: "The API key is disabled.",
    404: "There is no such thing here.",
    408: "The body did not come in time.",
    409: "The request does not fit what was asked before.",
    413: "The body is larger than the server takes.",
    415: "The content type or the encoding of the body is not supported.",
    422: "The request is not one that can be graded; `errors` names each place.",
    429: "Too much for now: the queue is full, or the key's rate is used up. Retry-After says when to come back.",
    500: "A mistake of ours.",
    503: "No worker can grade now, or the server is about to stop. Retry-After says when to come back.",
    504: "Too much for now, or no worker can run this now: it says nothing about the program. Send it again.",
}
# How a request may bring its key: ``auth.key_of``.
_KEYS: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key"},
    "basic": {"type": "http", "scheme": "basic", "description": "an API key as the password of any user"},
}
_WITH_RETRY_AFTER = (429, 503, 504)
PROBLEMS_OF_READING = (401, 403, 422, 429, 503)
"""What a route with a key can answer; a drain and the key's rate included."""
PROBLEMS_OF_BODIES = (400, 401, 403, 408, 413, 415, 422, 429, 503)
"""What a route that takes a body can answer."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's ``responses`` for problems with these statuses."""
    return {status: _problem_response(status) for status in statuses}


def takes(model: type[BaseModel]) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint that reads its body with ``bodies.read_model(request, model)``, to be documented so."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        endpoint.__dict__["takes"] = model
        return endpoint

    return mark


def asks_caller(endpoint: _Endpoint) -> _Endpoint:
    """Mark an endpoint that calls ``auth.caller_of`` itself, to be documented as one that depends on it."""
    endpoint.__dict__["asks_caller"] = True
    return endpoint


def document(app: FastAPI, routes: Iterable[object]) -> None:
    """Complete the application's OpenAPI document with the bodies and keys that ``routes`` take, and with problems.

    A route takes a key if its endpoint depends on who calls, or is marked with ``asks_caller``.
    """
    ours = [route for route in routes if isinstance(route, APIRoute)]
    marked = [(route, model) for route in ours if (model := _mark(route, "takes"))]
    keyed = [
        route
        for route in ours
        if _mark(route, "asks_caller") or any(map(_gives_caller, route.dependant.dependencies))
    ]
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            models = [ProblemAnswer, *dict.fromkeys(model for _, model in marked)]
            _, found = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            schema["components"]["securitySchemes"] = _KEYS
            for route, model in marked:
                for operation in _operations(schema, route):
                    operation["requestBody"] = _body(model)
            for route in keyed:
                for operation in _operations(schema, route):
                    operation["security"] = [{name: []} for name in _KEYS]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _mark(route: APIRoute, name: str) -> Any:
    return getattr(route.endpoint, "__dict__", {}).get(name)


def _gives_caller(dependency: Dependant) -> bool:
    return dependency.call is not None and get_type_hints(dependency.call).get("return") is Caller


def _operations(schema: dict[str, Any], route: APIRoute) -> Iterator[dict[str, Any]]:
    if route.include_in_schema:
        for method in route.methods or ():
            yield schema["paths"][route.path_format][method.lower()]


def _body(model: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": _REF.format(model=model.__name__)}
    return {"required": True, "content": {"application/json": {"schema": reference}}}


def _problem_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _MEANINGS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=ProblemAnswer.__name__)}}},
    }
    if status in _WITH_RETRY_AFTER:
        retry = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}
        response["headers"] = {"Retry-After": retry}
    return response
