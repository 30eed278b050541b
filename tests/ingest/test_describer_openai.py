"""The openai describer against an endpoint that misbehaves over real HTTP."""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featurestore.errors import CellError, ModelUnavailable
from featurestore.files import canonical_json
from featurestore.recipe import Recipe
from featurestore.schema import ValueKind
from ingest.describe.base import Answer, Request, Turn, maker
from ingest.describe.endpoint import Failure, read_refusal, read_reply, without
from ingest.describe.openai_api import PROBE, OpenAIDescriber, OpenAIOptions, closed
from ingest.describe.pace import Pace, backoff, duration, retry_after
from ingest.encode.base import Tools
from ingest.encode.models import Models
from tests.ingest.faulty_endpoint import ANSWERED, Endpoint, serving

KEY = "sk-very-secret-0123456789"
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def request(text: str, **more: Any) -> Request:
    return Request(f"id of {text}", (Turn("user", (text,)),), **more)


def options(server: Endpoint | str, **given: Any) -> OpenAIOptions:
    url = server if isinstance(server, str) else server.url
    quick = {"first_wait": 0.01, "timeout": 60.0, "deadline": 60.0, "retries": 2, "api_key_env": "TEST_KEY"}
    return OpenAIOptions.model_validate({"prompt": "p", "base_url": url} | quick | given)


@contextmanager
def describing(server: Endpoint | str, **given: Any) -> Iterator[OpenAIDescriber]:
    describer = OpenAIDescriber("m", options(server, **given))
    try:
        yield describer
    finally:
        describer.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def outcome(found: dict[int, Answer | CellError]) -> list[str]:
    """Text of an answer, code of an error, in the order of the requests."""
    return [found[k].text if isinstance(found[k], Answer) else found[k].code for k in sorted(found)]  # type: ignore[union-attr]


SICK = {
    "throttled": ["429:0.05"],
    "crash once": ["500"],
    "crash": ["500"] * 9,
    "truncated once": ["truncated"],
    "truncated": ["truncated"] * 9,
    "short": ["short"] * 9,
    "html": ["html"] * 9,
    "empty": ["empty"] * 9,
    "reset once": ["reset"],
    "reset": ["reset"] * 9,
    "filtered": ["400:content_filter"],
    "too long": ["400:context_length_exceeded"],
    "bad": ["400:what is this"],
}
CODES = {
    "crash": "http_500",
    "truncated": "bad_reply",
    "short": "connection_lost",
    "html": "bad_reply",
    "empty": "empty_reply",
    "reset": "connection_lost",
    "filtered": "refused",
    "too long": "too_long",
    "bad": "http_400",
}
FINAL = {"filtered", "too long", "bad"}  # asking again would not help


def test_whatever_an_endpoint_does_each_request_has_its_answer_or_its_code_and_no_answer_is_asked_for_twice() -> (
    None
):
    texts = [f"well {k}" for k in range(12)]
    for place, text in enumerate(SICK):
        texts.insert(1 + place, text)
    with serving(SICK) as server:
        with describing(server, concurrency=16, timeout=60.0, deadline=60.0) as describer:
            results = list(describer.describe([request(text) for text in texts]))
        found = dict(results)
        assert len(results) == len(found) == len(texts)
        expected = [CODES.get(text, f"{ANSWERED} {text}") for text in texts]
        assert outcome(found) == expected
        transient = {texts[k]: e.transient for k, e in found.items() if isinstance(e, CellError)}
        assert transient == {text: text not in FINAL for text in CODES}
        once = {text for text in texts if text not in SICK} | FINAL
        assert {text: server.asked[text] for text in once} == dict.fromkeys(once, 1)
        again = {text for text in SICK if text not in CODES}
        assert {text: server.asked[text] for text in again} == dict.fromkeys(again, 2)
        # the first try and two more; one of them may have died with a kept connection before it arrived
        assert {server.asked[text] for text in CODES.keys() - FINAL} <= {2, 3}
        assert set(server.answered.values()) == {1}


def test_an_endpoint_that_hangs_or_drips_is_left_and_asked_again() -> None:
    script = {"hang once": ["hang"], "hang": ["hang"] * 9, "drip": ["drip"] * 9}
    with serving(script) as server:
        with describing(server, timeout=1.0, deadline=1.5) as describer:
            found = dict(describer.describe([request(text) for text in script]))
        assert outcome(found) == [f"{ANSWERED} hang once", "timeout", "timeout"]
        assert all(1 < server.asked[text] <= 3 for text in script)
        assert server.answered == {"hang once": 1}


def test_answers_come_as_they_are_ready_and_say_what_they_took() -> None:
    with serving({"late": ["slow:0.5"]}) as server, describing(server) as describer:
        results = list(describer.describe([request("first"), request("late"), request("quick")]))
    assert [place for place, _ in results] == [0, 2, 1]
    answer = results[0][1]
    assert isinstance(answer, Answer)
    assert (answer.finish, answer.prompt_tokens, answer.completion_tokens) == ("stop", 7, 3)
    assert results[2][1].seconds >= 0.5  # type: ignore[union-attr]


def test_how_an_answer_ended_is_told() -> None:
    script = {"cut": ["finish:length"], "withheld": ["finish:content_filter"]}
    with serving(script) as server, describing(server) as describer:
        found = dict(describer.describe([request(text) for text in ("well", "cut", "withheld")]))
    assert [found[k].finish for k in range(3)] == ["stop", "length", "refused"]  # type: ignore[union-attr]


def test_no_more_requests_are_under_way_than_asked_for_and_the_first_goes_alone() -> None:
    with serving({f"t{k}": ["slow:0.05"] for k in range(12)}) as server:
        with describing(server, concurrency=3) as describer:
            found = dict(describer.describe([request(f"t{k}") for k in range(12)]))
        assert all(isinstance(answer, Answer) for answer in found.values())
        assert server.most_under_way == 3
        assert server.calls[1][0] - server.calls[0][0] >= 0.05


def test_a_limit_that_the_endpoint_tells_is_never_overrun() -> None:
    with serving() as server:
        server.limit = 4
        with describing(server, concurrency=8) as describer:
            found = dict(describer.describe([request(f"t{k}") for k in range(14)]))
        assert all(isinstance(answer, Answer) for answer in found.values())
        assert server.over == 0
        assert len(server.calls) == 14


def test_while_the_endpoint_asks_to_wait_nothing_more_is_sent() -> None:
    with serving() as server:
        server.limit, server.told, server.window = 4, False, 0.6
        with describing(server, concurrency=6) as describer:
            found = dict(describer.describe([request(f"t{k}") for k in range(14)]))
        assert all(isinstance(answer, Answer) for answer in found.values())
        assert set(server.answered.values()) == {1}
        # in each of the windows no more than what was under way when the first refusal came
        assert server.over <= 4 * (6 - 1)


def test_a_key_is_in_no_error_log_or_recipe(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    script = {"echo": [f"400:{KEY}"], "crash": [f"500:{KEY}"] * 9, "denied": [f"401:{KEY}"]}
    with serving(script) as server:
        with describing(server) as describer:
            found = dict(describer.describe([request(text) for text in ("well", "echo", "crash")]))
            with pytest.raises(ModelUnavailable) as caught:
                list(describer.describe([request("denied")]))
        resolved = maker("openai").resolve(options(server), "m", Models(tmp_path))
        assert server.keys == {f"Bearer {KEY}"}
    said = [e.message for e in found.values() if isinstance(e, CellError)]
    assert len(said) == 2
    assert all("***" in message for message in [*said, str(caught.value)])
    told = [*said, str(caught.value), repr(caught.value), canonical_json(resolved.options), repr(describer)]
    assert not any(KEY in text for text in told)
    assert caught.value.__cause__ is None or KEY not in str(caught.value.__cause__)
    assert KEY not in caplog.text


@pytest.mark.parametrize("length", range(250, 310, 3))
def test_a_key_is_not_told_by_its_beginning_where_a_message_is_cut(length: int) -> None:
    body = {"error": {"message": "x" * length + KEY}}
    html = (b"x" * length + KEY.encode(), "text/html")
    for failure in (read_refusal(500, body), read_reply(*html, 0.1)):
        assert isinstance(failure, Failure)
        assert KEY[:8] not in without(failure, KEY).message
    assert without(Failure("bad", "no key"), "").message == "no key"


@pytest.mark.parametrize("status", ["401", "403", "404", "402"])
def test_a_key_or_model_that_is_refused_ends_the_call_at_once(status: str) -> None:
    with serving({"t0": [status]}) as server, describing(server) as describer:
        with pytest.raises(ModelUnavailable, match=status):
            list(describer.describe([request(f"t{k}") for k in range(50)]))
        assert len(server.calls) <= 2  # one more may be on its way when the refusal has been read


def test_an_endpoint_that_is_not_there_ends_the_call_after_a_few_requests() -> None:
    with serving() as server:
        url = server.url
    begun = time.monotonic()
    with describing(url) as describer, pytest.raises(ModelUnavailable, match="no connection"):
        list(describer.describe([request(f"t{k}") for k in range(500)]))
    with describing(url) as describer, pytest.raises(ModelUnavailable, match="no connection"):
        list(describer.describe([request("one")]))
    assert time.monotonic() - begun < 30
    with pytest.raises(ModelUnavailable, match="start the endpoint"):
        maker("openai").resolve(options(url), "m", Models("."))


def test_an_endpoint_that_fails_all_there_is_ends_the_call_and_one_that_answered_before_does_not() -> None:
    script = {f"t{k}": ["500"] * 9 for k in range(1, 9)}
    dead = {f"t{k}": ["500"] * 9 for k in range(50)} | {PROBE: ["500"] * 9}
    with serving(dead) as server, describing(server) as describer:
        with pytest.raises(ModelUnavailable, match="500"):
            list(describer.describe([request(f"t{k}") for k in range(50)]))
        assert len(server.asked) <= 11
    with serving(script) as server, describing(server) as describer:
        found = dict(describer.describe([request(f"t{k}") for k in range(9)]))
        assert outcome(found) == [f"{ANSWERED} t0", *["http_500"] * 8]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_requests_that_fail_by_themselves_are_told_from_an_endpoint_that_does(count: int) -> None:
    texts = [f"t{k}" for k in range(count)]
    asked = [Request(text, (Turn("user", (PICTURE, text)),), {"type": "string"}) for text in texts]
    with serving({text: ["500"] * 9 for text in texts}) as server, describing(server) as describer:
        assert outcome(dict(describer.describe(asked))) == ["http_500"] * count
        (probe,) = (
            body for (_, text), body in zip(server.calls, server.bodies, strict=True) if text == PROBE
        )
        assert [part["type"] for part in probe["messages"][0]["content"]] == ["image_url", "text"]
        assert "response_format" in probe
    with (
        serving({"t0": ["500"] * 9, PROBE: ["500"]}) as server,
        describing(server) as describer,
        pytest.raises(ModelUnavailable, match="500"),
    ):
        list(describer.describe(asked[:1]))


def test_an_endpoint_that_asks_to_wait_for_an_hour_ends_the_call() -> None:
    with (
        serving({"t0": ["429:3600"]}) as server,
        describing(server) as describer,
        pytest.raises(ModelUnavailable, match="60 minutes"),
    ):
        list(describer.describe([request("t0"), request("t1")]))


def test_who_stops_listening_ends_what_is_under_way_and_may_ask_again() -> None:
    with serving({f"t{k}": ["hang"] for k in range(1, 9)}) as server, describing(server) as describer:
        results = describer.describe([request(f"t{k}") for k in range(9)])
        next(results)
        results.close()  # type: ignore[attr-defined]
        found = dict(describer.describe([request("later")]))
        assert outcome(found) == [f"{ANSWERED} later"]
        assert server.asked.keys() <= {f"t{k}" for k in range(9)} | {"later"}
    assert not [t for t in threading.enumerate() if t.name == "describe-openai"]


def test_what_is_sent_is_the_chat_api_s() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    turns = (Turn("system", ("be ", "short")), Turn("user", (PICTURE, "what is it")))
    with serving() as server:
        with describing(server, max_tokens=9) as describer:
            list(describer.describe([Request("i", turns, schema)]))
        with describing(server, omit=["seed", "temperature", "response_format"], max_pixels=800) as describer:
            list(describer.describe([Request("i", turns, schema)]))
        full, less = server.bodies
    assert full["messages"][0] == {"role": "system", "content": "be short"}
    picture, text = full["messages"][1]["content"]
    assert text == {"type": "text", "text": "what is it"}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(PICTURE))
    assert (full["model"], full["max_tokens"], full["temperature"], full["seed"]) == ("m", 9, 0.0, 0)
    assert full["response_format"]["json_schema"] == {"name": "answer", "schema": schema, "strict": False}
    assert not {"seed", "temperature", "response_format"} & less.keys()
    assert closed(schema | {"additionalProperties": False})
    assert not closed({"type": "array", "items": schema})


def test_an_endpoint_that_calls_the_length_by_its_newer_name_is_heeded() -> None:
    with serving({"t0": ["400:max_tokens"]}) as server, describing(server) as describer:
        found = dict(describer.describe([request("t0"), request("t1")]))
        assert outcome(found) == [f"{ANSWERED} t0", f"{ANSWERED} t1"]
        assert ["max_completion_tokens" in body for body in server.bodies] == [False, True, True]


def test_a_recipe_holds_the_model_s_name_and_not_where_it_is_served(tmp_path: Path) -> None:
    with serving({"/models": ["404"]}) as server:  # not every endpoint lists its models
        here = maker("openai").resolve(options(server, concurrency=2), "m", Models(tmp_path))
        recipe = Recipe(
            kind="describe",
            inputs=("image",),
            encoder="openai",
            model=here.model,
            options=here.options,
            value=ValueKind.TEXT,
        )
        tools = Tools(Models(tmp_path), artifacts=None)  # type: ignore[arg-type]
        describer = maker("openai").load(recipe, options(server), tools)
        assert outcome(dict(describer.describe([request("t")]))) == [f"{ANSWERED} t"]
        describer.close()
    with serving() as server:
        assert maker("openai").resolve(options(server), "m", Models(tmp_path)) == here
    with (
        serving({"/models": ["401:no such key"]}) as server,
        pytest.raises(ModelUnavailable, match="check the key"),
    ):
        maker("openai").resolve(options(server), "m", Models(tmp_path))


def test_a_hosted_endpoint_without_a_key_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TEST_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    given = options("x").model_copy(update={"base_url": None})
    with pytest.raises(ModelUnavailable, match="TEST_KEY is not set"):
        maker("openai").resolve(given, "m", Models(tmp_path))


def test_waits_are_read_from_headers() -> None:
    assert [duration(said) for said in ("20ms", "1s", "6m0s", "1h2m3.5s", "12.5")] == [
        0.02,
        1,
        360,
        3723.5,
        12.5,
    ]
    assert [duration(said) for said in ("soon", "1x", "", "-3", "nan")] == [None] * 5
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "50", "retry-after": "9"}) == 0.05
    assert retry_after({}) is None
    assert retry_after({"retry-after": "whenever"}) is None
    then = retry_after(
        {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)}
    )
    assert then == pytest.approx(90, abs=5)
    assert all(0.5 * 2**k <= backoff(k + 1, 1.0) <= 2**k for k in range(6))
    assert backoff(50, 1.0) <= 60


@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/html", ""]))
def test_any_bytes_of_a_reply_are_an_answer_or_a_failure(body: bytes, kind: str) -> None:
    assert isinstance(read_reply(body, kind, 0.1), Answer | Failure)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "refusal"]), inner, max_size=3
        )
    ),
)


@given(JSON)
def test_any_json_of_a_reply_is_an_answer_or_a_failure(reply: Any) -> None:
    assert isinstance(read_reply(canonical_json(reply).encode(), "application/json", 0.1), Answer | Failure)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 3)), min_size=1, max_size=30))
def test_a_pace_never_sends_more_in_a_window_than_the_endpoint_allows(steps: list[tuple[int, float]]) -> None:
    """An endpoint of 5 requests in windows of 10 s; at each step as many go out as may, and then some of them end."""
    now = 0.0
    pace, opened, taken = Pace(lambda: now), 0.0, 0
    flying: list[tuple[int, dict[str, str]]] = []
    for ending, passing in steps:
        while pace.wait() == 0:
            window = pace.started()
            if now >= opened + 10:
                opened, taken = now, 0
            taken += 1
            assert taken <= 5
            says = {"limit-requests": "5", "remaining-requests": str(5 - taken)}
            says["reset-requests"] = f"{opened + 10 - now}s"
            flying.append((window, {f"x-ratelimit-{name}": value for name, value in says.items()}))
        for _ in range(min(ending, len(flying))):
            window, says = flying.pop()  # the last one first: answers overtake each other
            pace.ended(window, 200, says)
        now += passing
