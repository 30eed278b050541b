"""What only the explorer asks of the service: its files, columns, and the map."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recommender.serve.routes import explore
from tests.recommender.serve.shelf import IDS, Served


def test_the_page_s_files_and_nothing_beside_them_are_served(served: Served) -> None:
    page = served.get("/")
    assert page.status == 200
    assert b"<title>Dualview</title>" in page.content
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert served.ask("GET", "/", headers={"If-None-Match": page.headers["etag"]}).status == 304
    script = served.get("/page/main.js")
    assert script.status == 200
    assert script.headers["content-type"].startswith("text/javascript")
    for path in ("/", "lib", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "lib/../../app.py"):
        refused = served.get(f"/page/{path}")
        assert refused.status in (400, 404), path
        assert json.loads(refused.content)["error"]["code"]
    assert served.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")


def test_columns_come_with_what_a_filter_can_say(served: Served) -> None:
    told = json.loads(served.get("/v1/explorer").content)
    assert told["store"] == "store"
    assert told["ratio"] == 1
    columns = {column["name"]: column for column in told["columns"]}
    assert (columns["tags"]["kind"], columns["tags"]["grouped"]) == ("list", True)
    assert columns["price"]["least"] == 0
    assert not columns["title"]["grouped"]


def test_the_map_has_a_place_and_a_colour_for_every_item_with_a_vector(served: Served) -> None:
    found = json.loads(served.get("/v1/map/image", layout="neighbours").content)
    assert found["total"] == len(found["ids"]) == len(found["x"]) == len(found["y"])
    assert set(found["ids"]) == {name for number, name in enumerate(IDS) if number % 5}
    assert max(map(abs, found["x"] + found["y"])) == explore.RANGE
    tags = json.loads(served.get("/v1/map/image/colours", by="tags").content)
    assert {group["name"] for group in tags["groups"]} == {"red", "green", "blue", "yellow"}
    first = [tags["groups"][code]["name"] for code in tags["codes"]]
    assert first == [["red", "green", "blue", "yellow"][IDS.index(name) % 4] for name in found["ids"]]
    price = json.loads(served.get("/v1/map/image/colours", by="price").content)
    wanted = [None if IDS.index(name) % 10 == 7 else float(IDS.index(name)) for name in found["ids"]]
    assert price["values"] == wanted
    assert (price["least"], price["greatest"]) == (1, 39)


@pytest.mark.parametrize(
    ("path", "status", "hint"),
    [
        ("/v1/map/imgae", 404, "image"),
        ("/v1/map/text?layout=umap", 422, ""),
        ("/v1/map/text/colours?by=tgas", 404, "tags"),
        ("/v1/map/text/colours?by=title", 404, ""),
        ("/v1/map/nothing/colours?by=tags", 404, ""),
        ("/v1/map/text/colours", 422, ""),
    ],
)
def test_a_map_of_what_is_not_there_is_refused_in_words(
    served: Served, path: str, status: int, hint: str
) -> None:
    refused = served.get(path)
    assert refused.status == status
    assert hint in json.loads(refused.content)["error"]["remedy"]


def test_of_many_points_some_are_sent_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "POINTS", 10)
    assert explore._sent(10).tolist() == list(range(10))
    chosen = explore._sent(1001)
    assert (np.diff(chosen) > 0).all()
    assert (len(chosen), chosen[0], chosen[-1]) == (10, 0, 1000)
