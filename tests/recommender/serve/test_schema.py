"""What the OpenAPI document promises is kept: no answer that it does not declare, and none that is a failure."""

from __future__ import annotations

import io
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from featurestore.store import Store
from tests.recommender.serve import shelf
from tests.recommender.serve.shelf import ODD, Served

EXAMPLES = 16  # questions of each kind
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def picture() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(kept, "JPEG")
    return kept.getvalue()


def sometimes_known(case: Case) -> Case:
    """Half of the questions name what is there, so that not all are refused."""
    place = sum(map(ord, str(case.body) + str(case.path_parameters)))
    if place % 2:
        item = ODD[place % len(ODD)]
        for name, known in (("item_id", item), ("user_id", f"u{place % 20:02d}"), ("feature", "text")):
            if case.path_parameters and name in case.path_parameters:
                case.path_parameters[name] = known
        if case.query and "by" in case.query:
            case.query["by"] = "price"
        if isinstance(case.body, dict) and "image" in case.body:
            case.body = {"image": picture(), "options": '{"k": 3}'}
        elif isinstance(case.body, dict):
            for name in ("features", "run", "user"):
                case.body.pop(name, None)
            case.body["history" if case.path == "/v1/recommend" else "items"] = [item]
    return case


def statuses_of(operation: Any) -> set[int]:
    """What is answered to questions of one kind, each answer checked."""
    found = set()

    @SETTINGS
    @given(case=operation.as_strategy())
    def ask(case: Case) -> None:
        answer = sometimes_known(case).call(timeout=30)
        found.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    return found


def test_every_answer_is_a_declared_one(asked_store: Store) -> None:
    answered: dict[str, set[int]] = {}
    with shelf.serving(asked_store) as served:
        served.service.current.warm()
        document = schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json")
        for found in document.get_all_operations():
            operation = found.ok()
            answered[operation.label] = statuses_of(operation)
    assert len(answered) > 15
    assert not [label for label, statuses in answered.items() if 200 not in statuses]


def test_every_route_declares_its_refusals(served: Served) -> None:
    document = served.get("/openapi.json").json
    assert document["openapi"].startswith("3.")
    error = document["components"]["schemas"]["Error"]
    assert set(error["required"]) == {"code", "message", "remedy"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, ways in document["paths"].items():
        for way, told in ways.items():
            assert told["description"], f"{way} {path}"
            assert {"200", "401", "421", "503"} <= set(told["responses"]), f"{way} {path}"
            if told.get("parameters") or told.get("requestBody"):
                assert "422" in told["responses"], f"{way} {path}"
