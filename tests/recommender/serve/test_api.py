"""What the service answers: the same as the Python calls, with the release, the run and the recall named."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from featurestore.carried import Carried
from featurestore.export import export
from featurestore.query import Query
from featurestore.search import search
from featurestore.store import Store
from ingest.encode.query import ReleaseEncoder
from recommender.retrieve import Retriever
from recommender.serve.cards import Cards
from tests.recommender.serve import shelf
from tests.recommender.serve.shelf import IDS, ODD, Served, path_of


def ranking(answer: shelf.Answer) -> list[tuple[str, float]]:
    assert answer.status == 200, answer.content
    return [(each["id"], each["score"]) for each in answer.json["items"]]


def expected(store: Store, query: Query) -> list[tuple[str, float]]:
    release = store.release()
    found = search(release, query, ReleaseEncoder(store, release))
    return list(zip(found["item_id"].to_pylist(), found["score"].to_pylist(), strict=True))


def until_ready(served: Served, part: str) -> None:
    for _ in range(600):
        if served.get("/ready", part=part).status == 200:
            return
        time.sleep(0.05)
    raise AssertionError(served.get("/ready").json)


def test_it_says_what_it_serves(served: Served) -> None:
    assert served.get("/health").json == {"status": "ok"}
    until_ready(served, "recommend")
    until_ready(served, "text")
    told = served.get("/ready").json
    assert (told["release"], told["run"]) == ("0001", "sasrec-text-001")
    assert told["failed"] is None
    assert served.get("/v1/releases").json["releases"][0]["items"] == len(IDS)
    (run,) = served.get("/v1/runs").json["runs"]
    assert run["promoted"]
    assert run["served"]
    features = {each["name"]: each for each in served.get("/v1/features", status="true").json["features"]}
    assert features["text"]["asked_by"] == ["item", "text"]
    assert features["image"]["asked_by"] == ["item", "picture"]
    assert features["image"]["coverage"]["no_input"] == len(IDS) / 5
    assert features["text"]["index"] == {"feature": "text", "kind": "exact", "exact": True, "recall": 1.0}
    assert features["text"]["status"]["current"] == len(IDS)
    figures = served.get("/metrics").content.decode()
    assert 'dualview_requests_total{method="GET",route="/health",status="200"}' in figures
    assert 'dualview_release{release="0001",run="sasrec-text-001"} 1.0' in figures


@pytest.mark.parametrize("item", [*ODD, "i007"])
def test_every_id_is_reached_by_its_path(served: Served, asked_store: Store, item: str) -> None:
    page = served.get(f"/v1/items/{path_of(item)}").json
    assert page["item"]["id"] == item
    found = served.get(f"/v1/similar/{path_of(item)}", k=4)
    assert ranking(found) == expected(asked_store, Query(items=(item,), k=4))
    assert found.json["release"] == "0001"
    lineage = served.get(f"/v1/items/{path_of(item)}/lineage")
    assert lineage.json["lineage"]["name"] == item
    assert str(asked_store.root.parent).encode() not in lineage.content
    picture = served.get(f"/v1/items/{path_of(item)}/picture")
    assert (picture.status == 200) == (page["item"]["picture"] is not None)


def test_a_picture_is_kept_by_whoever_has_it(served: Served) -> None:
    path = f"/v1/items/{path_of('x/picture')}/picture"
    small = served.get(path)
    assert small.headers["content-type"] == "image/jpeg"
    assert served.ask("GET", path, headers={"if-none-match": small.headers["etag"]}).status == 304
    whole = served.get(path, size="original")
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["etag"] != small.headers["etag"]
    assert served.get(f"/v1/items/{path_of('a/b')}/picture").error["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"items": ["i003"]}, Query(items=("i003",))),
        ({"items": ["i003"], "features": {"image": 1.0}}, Query(items=("i003",), features={"image": 1.0})),
        (
            {"items": ["i003", "a/b"], "unlike": ["i004"], "features": {"text": 0.3, "image": 2}, "k": 5},
            Query(items=("i003", "a/b"), unlike=("i004",), features={"text": 0.3, "image": 2.0}, k=5),
        ),
        (
            {"items": ["i003"], "where": "price < 20", "k": 20, "diversity": 0.5},
            Query(items=("i003",), where="price < 20", k=20, diversity=0.5),
        ),
        ({"items": ["i003"], "where": "'mug' IN tags"}, Query(items=("i003",), where="'mug' IN tags")),
        ({"text": "red lamp"}, Query(text="red lamp")),
        ({"words": "red lamp"}, Query(text="red lamp", mode="keyword")),
        ({"text": "red lamp", "words": "red lamp"}, Query(text="red lamp", mode="hybrid")),
        ({"text": "red lamp", "mode": "hybrid", "exact": True}, Query(text="red lamp", mode="hybrid")),
    ],
)
def test_similar_answers_as_the_store_does(
    served: Served, asked_store: Store, body: dict[str, object], query: Query
) -> None:
    found = served.post("/v1/similar", body)
    assert ranking(found) == expected(asked_store, query)
    assert all(one["recall"] == 1.0 for one in found.json["index"])


def test_an_answer_explains_itself(served: Served) -> None:
    asked = {"items": ["i003"], "features": {"text": 1, "image": 0.5}, "where": "price < 20", "explain": True}
    found = served.post("/v1/similar", asked).json
    assert found["explain"]["items_passing_filter"] == sum(n < 20 and n % 10 != 7 for n in range(len(IDS)))
    for hit in found["items"]:
        parts = [part for part in hit["explain"].values() if part is not None]
        assert sum(parts) == pytest.approx(hit["score"], abs=1e-6)
    assert {one["feature"] for one in found["index"]} == {"text", "image"}


def test_a_picture_finds_its_item(served: Served, asked_store: Store) -> None:
    picture = (asked_store.root.parent / "pictures" / "13.png").read_bytes()
    assert ranking(served.upload(picture, '{"k": 1}'))[0][0] == IDS[13]
    refused = served.upload(picture, '{"k": 1}', more={"k": "3"})
    assert refused.status == 400
    assert "no field of the form is called 'k'" in refused.error["message"]
    assert len(ranking(served.upload(picture, '{"k": 3, "items": ["i001"], "features": {"image": 1}}'))) == 3


def test_a_user_and_the_same_history_are_recommended_the_same(served: Served, asked_store: Store) -> None:
    found = Retriever.open(asked_store).recommend("a/b user", k=5)
    by_user = served.post("/v1/recommend", {"user": "a/b user", "k": 5})
    assert ranking(by_user) == list(
        zip(found["item_id"].to_pylist(), found["score"].to_pylist(), strict=True)
    )
    assert by_user.json["run"] == "sasrec-text-001"
    events = served.get(f"/v1/users/{path_of('a/b user')}/history").json
    assert events["total"] == 8
    history = [each["id"] for each in events["events"]][::-1]
    by_history = served.post("/v1/recommend", {"history": history, "k": 5, "explain": True})
    assert ranking(by_history) == ranking(by_user)
    for hit in by_history.json["items"]:
        near = hit["explain"]["nearest"]
        assert {each["id"] for each in near} <= set(history)
        assert [each["cosine"] for each in near] == sorted((each["cosine"] for each in near), reverse=True)
    again = served.post("/v1/recommend", {"user": "a/b user", "k": 30, "exclude_seen": False})
    assert set(history) & {name for name, _ in ranking(again)}


def test_the_guides_client_works(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    code = guide.partition("```python\n")[2].partition("```")[0]
    code = code.replace(":8000", f":{served.port}").replace("P0000", "i001").replace("mug", "lamp")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.txt").write_text("no key is asked for\n")
    exec(compile(code, "docs/serve.md", "exec"), {})
    *hits, recommended = capsys.readouterr().out.splitlines()
    assert len(hits) == 3
    assert "lamp" in hits[0]
    assert len(ast.literal_eval(recommended)) == 3


def test_the_catalogue_is_browsed_and_searched(served: Served) -> None:
    first = served.get("/v1/items", limit=3).json
    assert first["total"] == len(IDS)
    assert [each["id"] for each in first["items"]] == sorted(IDS)[:3]
    assert served.get("/v1/items", limit=3, offset=2).json["items"][0] == first["items"][2]
    lamps = served.get("/v1/items", q="red lamp", where="price < 30").json
    assert lamps["items"][0]["title"].startswith("red lamp")
    assert served.get("/v1/items", q="lampe").json["notes"] == ["no item has 'lampe'; did you mean 'lamp'?"]
    named = served.ask("GET", f"/v1/items?id={path_of('50%25 off')}&id=i001").json
    assert [each["id"] for each in named["items"]] == ["50%25 off", "i001"]


def test_cards_are_kept_up_to_a_size(asked_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(asked_store.release())
    whole = cards.json(range(len(IDS)))
    assert cards._size == sum(map(len, whole))
    monkeypatch.setattr("recommender.serve.cards.KEPT", 1_000)
    some = Cards(asked_store.release())
    assert [some.json([row])[0] for row in (*range(len(IDS)), 3, 3)] == [*whole, whole[3], whole[3]]
    assert 500 < some._size == sum(map(len, some._json.values())) <= 1_000


def test_head_is_get_without_its_body(served: Served) -> None:
    whole, head = served.get("/v1/items/i001"), served.ask("HEAD", "/v1/items/i001")
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert served.ask("HEAD", "/v1/items/nobody").status == 404


def test_users_are_found_by_how_their_id_begins(served: Served) -> None:
    found = served.get("/v1/users", prefix="u1", limit=3).json
    assert found["total"] == 10
    assert found["users"][0] == {"id": "u10", "events": 8}
    assert served.get("/v1/users/nobody/history").error["code"] == "not_found"


def test_a_carried_release_is_served_too(asked_store: Store, tmp_path: Path) -> None:
    export(asked_store.release(), tmp_path / "out", to="release")
    with shelf.serving(Carried.open(tmp_path / "out")) as carried:
        assert ranking(carried.get("/v1/similar/i003")) == expected(asked_store, Query(items=("i003",)))
        assert "serve the store" in carried.get("/v1/items/i003/lineage").error["remedy"]
        assert carried.get("/v1/items/i003/picture").error["code"] == "not_found"
        assert carried.post("/v1/recommend", {"user": "u01"}).error["code"] == "not_found"
        assert carried.post("/v1/similar", {"text": "red"}).error["code"] == "bad_input"
        assert ranking(carried.post("/v1/similar", {"words": "red lamp"}))
