"""The OpenAPI document says what the service takes and gives."""

from __future__ import annotations

from grader.server.parts import standard_parts


def test_bodies_and_problems_are_documented(front):
    schema = front.app.openapi()
    grade = schema["paths"]["/v1/grade"]["post"]
    assert grade["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/GradeRequest")
    assert schema["components"]["schemas"]["GradeRequest"]["properties"]["samples"]["maxItems"] == 100_000
    assert set(grade["responses"]["200"]["content"]) == {"application/json", "application/x-ndjson"}
    for status in ("400", "401", "403", "408", "413", "415", "422", "429", "503"):
        assert list(grade["responses"][status]["content"]) == ["application/problem+json"]
    assert grade["security"] == [{"bearer": []}, {"api_key": []}, {"basic": []}]
    assert "Retry-After" in grade["responses"]["429"]["headers"]


def test_keys_are_documented_wherever_they_are_asked_for(make_front, tmp_path):
    schema = make_front(parts=standard_parts(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")).app.openapi()
    open_to_all = {
        path for path, methods in schema["paths"].items() for one in methods.values() if "security" not in one
    }
    assert open_to_all == {"/healthz", "/readyz"}
    named = {
        path
        for path, methods in schema["paths"].items()
        for one in methods.values()
        if any(parameter["name"] == "Idempotency-Key" for parameter in one.get("parameters", ()))
    }
    assert named == {"/v1/grade", "/v1/rewards", "/v1/jobs"}


def test_every_reference_leads_somewhere(make_front, tmp_path):
    schema = make_front(parts=standard_parts(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")).app.openapi()
    known = schema["components"]["schemas"]

    def references(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert {
        ref for ref in references(schema) if ref.removeprefix("#/components/schemas/") not in known
    } == set()
