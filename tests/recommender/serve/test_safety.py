"""Whatever is sent, the answer is a refusal that says what to do: never a stack trace, a path, or another's data."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from featurestore.errors import BadInput, NotFound
from featurestore.store import Store
from recommender.serve.guard import cookie, host_name, path_of
from recommender.serve.settings import Settings, read_key
from tests.recommender.serve import shelf
from tests.recommender.serve.shelf import Served

KEY = "k" * 16 + "-secret"


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that promises so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(kept, "JPEG")
    return kept.getvalue()


NUMBERS = "[" * 100_000 + "]" * 100_000
HOSTILE: list[tuple[object, int]] = [
    ({"items": ["i001"], "k": 10**9}, 422),
    ({"items": ["i001"], "k": 51}, 400),
    ({"items": ["i001"], "k": 0}, 422),
    ({"items": ["i001"], "k": 2.5}, 422),
    ({"items": ["i001"], "k": True}, 422),
    ({"items": ["i001"], "k": "5"}, 422),
    ({"items": ["i001"] * 101}, 422),
    ({"items": ["x" * 513]}, 422),
    ({"items": [""]}, 422),
    ({"items": "i001"}, 422),
    ({"items": [{"id": "i001"}]}, 422),
    ({"items": ["i001\x00"]}, 404),
    ({"items": ["nobody"]}, 404),
    ({"items": ["../../../etc/passwd"]}, 404),
    ({"items": ["i001"], "unlike": ["i001"]}, 400),
    ({"items": ["i001"], "features": {"text": -1}}, 422),
    ({"items": ["i001"], "features": {"text": 1e300}}, 422),
    ({"items": ["i001"], "features": {"text": 0}}, 400),
    ({"items": ["i001"], "features": {}}, 400),
    ({"items": ["i001"], "features": {"txet": 1}}, 404),
    ({"items": ["i001"], "features": {f"f{n}": 1 for n in range(33)}}, 422),
    ({"items": ["i001"], "fetures": {"text": 1}}, 422),
    ({"items": ["i001"], "diversity": 2}, 422),
    ({"items": ["i001"], "where": "price < 20; DROP TABLE items"}, 400),
    ({"items": ["i001"], "where": "1=1 UNION SELECT * FROM read_text('/etc/passwd')"}, 400),
    ({"items": ["i001"], "where": "price < (SELECT count(*) FROM read_csv('/etc/passwd'))"}, 400),
    ({"items": ["i001"], "where": "read_text('/etc/hostname') IS NOT NULL"}, 400),
    ({"items": ["i001"], "where": "pirce < 2"}, 400),
    ({"items": ["i001"], "where": "(" * 9_000}, 400),
    ({"items": ["i001"], "where": "NOT " * 2_000 + "price < 1"}, 400),
    ({"items": ["i001"], "where": "x" * 10_001}, 422),
    ({"text": "x" * 2_001}, 422),
    ({"text": "   "}, 400),
    ({"text": "zzz qqq"}, 400),
    ({"text": "red", "words": "blue"}, 400),
    ({"words": "zzzz"}, 400),
    ({"text": "red", "mode": "sql"}, 422),
    ({}, 400),
    ([], 422),
    (b"", 422),
    (b"{", 422),
    (b"\xff\xfe", 422),
    (b"null", 422),
    (b'{"items": ["i001"], "features": {"text": NaN}}', 422),
    (b'{"items": ["i001"], "diversity": Infinity}', 422),
    (b'{"items": ["i001"], "k": 1e400}', 422),
    (b'{"items": ["\\ud800"]}', 422),
    (b'{"text": "\\u0000"}', 400),
    (NUMBERS.encode(), 400),
    (b'{"items": ' + NUMBERS.encode() + b"}", 400),
    (b'{"items": ["' + b"x" * 1_100_000 + b'"]}', 413),
    (gzip.compress(b'{"items": ["i001"]}'), 400),
]


@pytest.mark.parametrize(("sent", "status"), HOSTILE, ids=lambda value: str(value)[:50])
def test_a_hostile_question_is_refused(served: Served, sent: object, status: int) -> None:
    found = served.post("/v1/similar", sent)
    assert found.status == status, found.content[:300]
    assert found.error["message"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"user": "nobody"}, 404),
        ({"user": "u01\x00"}, 404),
        ({"user": "u01", "history": ["i001"]}, 400),
        ({}, 400),
        ({"history": []}, 422),
        ({"history": ["i001"] * 2_001}, 422),
        ({"history": ["nothing"]}, 404),
        ({"history": ["i001"] * 1_999 + ["x" * 512]}, 404),
        ({"user": "x" * 512}, 404),
        ({"user": "u01", "run": "../../../etc"}, 404),
        ({"user": "u01", "run": "."}, 404),
        ({"user": "u01", "k": 10**9}, 422),
        ({"user": "u01", "rerank": "../../model"}, 404),
        ({"user": "u01", "rerank": "msr"}, 404),
        ({"user": "u01", "rerank": "sasrec-text-001"}, 400),
        ({"user": "u01", "depth": 5}, 400),
        ({"user": "u01", "rerank": "msr", "depth": 10**6}, 422),
        ({"user": "u01", "where": "price < 1 OR system('ls')"}, 400),
    ],
    ids=str,
)
def test_a_hostile_wish_for_recommendations_is_refused(served: Served, sent: object, status: int) -> None:
    found = served.post("/v1/recommend", sent)
    assert found.status == status, found.content
    assert found.error["code"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/items/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/v1/items/%2e%2e/%2e%2e/store.json", 404),
        ("/v1/items/%00", 404),
        ("/v1/items/%ff%fe", 404),
        ("/v1/items/" + "x" * 2_000, 422),
        ("/v1/items/" + "x" * 600, 400),
        ("/v1/items/i001/picture?size=../../x", 422),
        ("/v1/items?limit=100000", 422),
        ("/v1/items?offset=-1", 422),
        ("/v1/items?where=price%20%3C%20(select%201)", 400),
        ("/v1/similar/i001?k=1000000000", 422),
        ("/v1/similar/i001?feature=..%2F..", 404),
        ("/v1/similar/a%2Fb?feature=image", 404),
        ("/v1/users/u01%00/history", 404),
        ("/ready?part=everything", 422),
        ("/page/..%2f..%2fapp.py", 404),
        ("/v1/", 404),
        ("//etc/passwd", 404),
        ("/docs", 404),
    ],
)
def test_a_hostile_path_is_refused(served: Served, path: str, status: int) -> None:
    found = served.ask("GET", path)
    assert found.status == status, found.content
    assert found.error["message"]


def test_an_answer_bears_what_keeps_a_browser_safe(served: Served) -> None:
    headers = served.get("/v1/items/i001").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    refused = served.get("/v1/items/nobody").headers
    assert refused["x-content-type-options"] == "nosniff"
    original = served.get("/v1/items/i001/picture", size="original").headers
    assert "sandbox" in original["content-security-policy"]


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", 400),
        (b"not a picture", 400),
        (jpeg()[:100], 400),
        (png(50_000, 50_000), 400),
        (png(2**31 - 1, 2**31 - 1), 400),
        (png(1_001, 1_000), 400),
        (png(500, 500, b"\0"), 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 400),
        (b"%!PS-Adobe-3.0 EPSF\n%%BoundingBox: 0 0 9 9\n", 400),
        (b"x" * 230_000, 400),
        (b"x" * 400_000, 413),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_a_hostile_picture_is_refused(served: Served, image: bytes, status: int) -> None:
    found = served.upload(image)
    assert found.status == status, found.content
    assert found.error["code"] in ("bad_input", "too_large")


def test_of_a_bomb_no_more_is_inflated_than_its_pixels(served: Served) -> None:
    assert served.upload(png(500, 500, zlib.compress(b"\0" * 100_000_000))).status == 200


@pytest.mark.parametrize("options", ["[]", "{", '{"k": 1e9}', '{"words": "x"}', "[" * 50_000, '{"k": NaN}'])
def test_hostile_options_beside_a_picture_are_refused(served: Served, options: str) -> None:
    found = served.upload(jpeg(), options)
    assert found.status == 422, found.content
    assert (
        served.upload(jpeg(), filename="../../../etc/cron.d/x").status == 200
    )  # a file's name means nothing


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b'{"items": ["i001"]}'),
        ("application/x-www-form-urlencoded", b"items=i001"),
        ("application/xml", b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
    ],
)
def test_a_body_of_another_type_is_refused(served: Served, kind: str, body: bytes) -> None:
    for path in ("/v1/similar", "/v1/similar/image"):
        found = served.ask("POST", path, body, {"content-type": kind})
        assert found.status in (400, 422), found.content
        assert found.error["code"]


def test_a_body_without_a_length_is_bounded_too(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = "POST /v1/similar HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(40):
                connection.sendall(piece)
        except OSError:  # it does not read on
            pass
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_on_loopback_a_foreign_name_is_refused(served: Served) -> None:
    for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", ""):
        assert served.ask("GET", "/v1/items", headers={"host": name}).status == 421
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:80"):
        assert served.ask("GET", "/v1/items", headers={"host": name}).status == 200
    assert host_name(b"[::1]:80") == "[::1]"


@pytest.fixture(scope="module")
def locked(asked_store: Store) -> Iterator[Served]:
    """A service that asks for a key."""
    with shelf.serving(
        asked_store, api_key=KEY, cors=("https://shop.example",), hosts=("shop.example",)
    ) as found:
        yield found


def test_without_the_key_nothing_of_the_store_is_told(locked: Served) -> None:
    for path in (
        "/v1/items",
        "/v1/items/i001/picture",
        "/metrics",
        "/openapi.json",
        "/nothing",
        "/v1/similar/i001",
    ):
        found = locked.get(path)
        assert found.status == 401
        assert found.headers["www-authenticate"] == "Bearer"
        assert found.error["code"] == "unauthorized"
    assert locked.post("/v1/reload", {}).status == 401
    assert locked.get("/health").status == locked.get("/ready").status == 200


@pytest.mark.parametrize(
    "headers",
    [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}],
)
def test_with_the_key_it_answers(locked: Served, headers: dict[str, str]) -> None:
    assert locked.ask("GET", "/v1/items", headers=headers).status == 200
    assert locked.ask("GET", "/v1/items", headers={"host": "shop.example"} | headers).status == 200
    wrong = {name: value[:-1] for name, value in headers.items()}
    assert locked.ask("GET", "/v1/items", headers=wrong).status == 401
    assert locked.ask("GET", "/v1/items", headers={"authorization": "Bearer \xe9"}).status == 401


def test_a_browser_shows_the_key_once(locked: Served) -> None:
    answer = locked.ask("POST", "/v1/session", headers={"x-api-key": KEY})
    kept = answer.headers["set-cookie"]
    assert KEY not in kept
    assert "HttpOnly" in kept
    assert "SameSite=strict" in kept
    session = kept.partition(";")[0]
    assert locked.ask("GET", "/v1/items", headers={"cookie": f"other=1; {session}"}).status == 200
    assert locked.ask("GET", "/v1/items", headers={"cookie": session[:-1]}).status == 401
    assert locked.ask("POST", "/v1/session", headers={"x-api-key": "wrong"}).status == 401
    assert cookie(b"a=1; b=2", "b") == "2"


def test_only_named_origins_may_read_answers(locked: Served, served: Served) -> None:
    asking = {"x-api-key": KEY, "origin": "https://shop.example"}
    assert (
        locked.ask("GET", "/v1/items", headers=asking).headers["access-control-allow-origin"]
        == asking["origin"]
    )
    refused = locked.ask("GET", "/v1/items", headers={"origin": "https://shop.example"})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    foreign = locked.ask("GET", "/v1/items", headers=asking | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers
    assert "access-control-allow-origin" not in served.ask("GET", "/v1/items", headers=asking).headers
    before = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert locked.ask("OPTIONS", "/v1/similar", headers=before).status == 200


def test_a_foreign_page_has_no_work_done(served: Served, locked: Served) -> None:
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example", "x-api-key": KEY}
    for one in (served, locked):
        assert one.ask("POST", "/v1/reload", headers=foreign).error["code"] == "forbidden"
        assert (
            one.ask("POST", "/v1/reload", headers=foreign | {"sec-fetch-site": "same-origin"}).status == 200
        )
    named = foreign | {"origin": "https://shop.example"}
    assert locked.ask("POST", "/v1/reload", headers=named).status == 200
    assert served.ask("POST", "/v1/reload", headers=named).status == 403
    assert served.get("/v1/items").headers["cross-origin-resource-policy"] == "same-origin"
    assert (
        "cross-origin-resource-policy" not in locked.get("/v1/items").headers
    )  # its pictures are for shop.example


def test_a_parameter_that_is_not_heeded_is_refused(served: Served) -> None:
    assert served.get("/v1/similar/i001", features="text").error["remedy"] == "did you mean 'feature'?"
    for path in ("/v1/items?filter=x", "/v1/releases?x", "/v1/items/i001?k=3", "/v1/map/text?colour=price"):
        assert served.ask("GET", path).status == 422, path
    assert served.ask("POST", "/v1/similar?k=3", b'{"items": ["i001"]}').status == 422
    assert served.get("/v1/items", q="lamp", id="i001").status == 400
    assert served.get("/", utm="x").status == served.get("/health", t="1").status == 200


def test_who_comes_when_too_many_wait_is_told_to_come_again(asked_store: Store) -> None:
    with shelf.serving(asked_store, workers=1, queue=2) as busy:
        gate = threading.Event()
        busy.service.pool.submit(gate.wait)  # the one thread is at work
        found: list[shelf.Answer] = []
        asking = [
            threading.Thread(target=lambda: found.append(busy.get("/v1/similar/i001"))) for _ in range(8)
        ]
        for each in asking:
            each.start()
        while len(found) < 5:  # those beyond one at work and two that wait are answered at once
            threading.Event().wait(0.01)
        assert [each.status for each in found] == [503] * 5
        assert found[0].headers["retry-after"] == "1"
        assert busy.get("/health").status == 200
        gate.set()
        for each in asking:
            each.join()
        assert sorted(each.status for each in found) == [200] * 3 + [503] * 5


def test_a_bug_is_told_of_without_its_trace(asked_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with shelf.serving(asked_store) as broken:

        def fails(rows: object) -> None:
            raise RuntimeError("/secret/path")

        monkeypatch.setattr(broken.service.current.cards, "of", fails)
        found = broken.get("/v1/items")
        assert found.status == 500
        assert found.error["code"] == "bug"
        assert b"secret" not in found.content
        assert found.headers["x-content-type-options"] == "nosniff"
        assert broken.get("/health").status == 200


def test_the_access_log_tells_routes_and_not_what_was_asked(
    asked_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dualview.access")
    with shelf.serving(asked_store, access_log="routes") as logged:
        logged.get("/v1/items/i001", secret="word")
        logged.get("/v1/nothing/secret")
        logged.post("/v1/similar", {"text": "secret wish"})
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "dualview.access"]
    assert [line["route"] for line in lines] == ["/v1/items/{item_id}", "none", "/v1/similar"]
    assert set(lines[0]) == {"time", "method", "route", "status", "ms", "bytes", "client"}
    assert "secret" not in caplog.text
    assert "i001" not in caplog.text


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"max_k": 0},
        {"port": 70_000},
        {"cors": ("*",)},
        {"cors": ("https://a/b",)},
        {"cors": ("https://",)},
        {"hosts": ("shop.example:8000",)},
        {"hosts": ("https://shop.example",)},
        {"access_log": "all"},
    ):
        with pytest.raises(BadInput):
            Settings(**wrong)  # type: ignore[arg-type]
    assert Settings(cors=("https://Shop.example:8443",)).cors == ("https://shop.example:8443",)
    assert Settings().loopback
    assert not Settings(host="0.0.0.0").loopback
    assert Settings(host="0.0.0.0").allowed_hosts == frozenset()
    named = Settings(host="0.0.0.0", hosts=("Shop.example",)).allowed_hosts
    assert {"shop.example", "127.0.0.1"} < named  # a container asks itself whether it is ready
    assert "[::1]" in Settings(host="::1").allowed_hosts
    assert "[fd00::1]" in Settings(host="fd00::1", hosts=("shop.example",)).allowed_hosts
    assert "secret" not in repr(Settings(api_key=KEY))
    (tmp_path / "key").write_text("short\n")
    with pytest.raises(BadInput):
        read_key(tmp_path / "key")
    with pytest.raises(NotFound):
        read_key(tmp_path / "nothing")
    (tmp_path / "key").write_text(KEY + "\n")
    assert read_key(tmp_path / "key") == KEY


def test_an_escaped_slash_does_not_part_a_path() -> None:
    def decoded(raw: bytes) -> str:
        return path_of({"raw_path": raw, "path": ""})

    assert decoded(b"/v1/items/a%2fb%25c%20d") == "/v1/items/a%2Fb%25c d"
    assert decoded(b"/v1/items/%252F") == "/v1/items/%252F"
