"""Which APIs a service has, and which contradict each other."""

from __future__ import annotations

import pytest

from grader.errors import InputError
from grader.server.compat.catalogue import APIS, DEFAULT, chosen_apis, compat_parts


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("GRADER_COMPAT", raising=False)


def test_sandbox_fusion_is_there_by_default():
    assert chosen_apis(None) == chosen_apis([]) == DEFAULT == ("sandbox-fusion",)


def test_flags_win_over_the_variable(monkeypatch):
    monkeypatch.setenv("GRADER_COMPAT", "piston, nemo-skills,")
    assert chosen_apis(None) == ("piston", "nemo-skills")
    assert chosen_apis(["open-instruct", "open-instruct"]) == ("open-instruct",)
    assert chosen_apis(["none"]) == ()


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="there is no such API; there are sandbox-fusion, piston"):
        chosen_apis(["sandboxfusion"])
    with pytest.raises(InputError, match="contradict each other"):
        chosen_apis(["piston", "none"])
    with pytest.raises(InputError, match="no such API"):
        compat_parts(["x"])


@pytest.mark.parametrize("name", sorted(APIS))
def test_each_api_can_be_made(name):
    (part,) = compat_parts([name])
    assert part.router.routes


def test_two_that_answer_the_same_requests_are_refused():
    with pytest.raises(InputError, match="open-r1-e2b and --compat nemo-skills both answer GET /health"):
        compat_parts(["open-r1-e2b", "nemo-skills"])
    with pytest.raises(InputError, match="both answer"):
        compat_parts(["open-r1-e2b", "open-r1-morph"])
    assert len(compat_parts(["sandbox-fusion", "piston", "nemo-skills"])) == 3


def test_the_description_has_every_api(compat):
    paths = compat("sandbox-fusion", "piston", "open-instruct").get("/openapi.json").json()["paths"]
    assert {
        "/run_code",
        "/submit",
        "/common_evaluate_batch",
        "/api/v2/execute",
        "/test_program",
    } <= paths.keys()
    body = paths["/run_code"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("RunCodeRequest")


def test_models_of_different_apis_have_different_names():
    seen: dict[str, str] = {}
    for name in sorted(APIS):
        for part in compat_parts([name]):
            for route in part.router.routes:
                model = getattr(route.endpoint, "__dict__", {}).get("takes")
                if model is not None:
                    where = seen.setdefault(model.__name__, model.__module__)
                    assert where == model.__module__, (
                        f"the description would mix up two models {model.__name__}"
                    )
