"""A newer release takes over between two requests, and only if it can answer."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import pytest

from dualview.housekeeping import forget
from featurestore.errors import DualviewError
from featurestore.store import Store
from recommender import runs
from recommender.config import Config
from recommender.fit import fit
from tests.recommender.serve import shelf
from tests.recommender.serve.shelf import IDS, Answer, Served


@pytest.fixture
def store(asked_store: Store, tmp_path: Path) -> Store:
    (tmp_path / "pictures").symlink_to(asked_store.root.parent / "pictures")
    return shelf.copied(asked_store, tmp_path)


def figure(served: Served, name: str) -> float:
    lines = served.get("/metrics").content.decode().splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name + " ")))


def test_new_items_come_with_the_next_release_and_need_no_training(store: Store) -> None:
    with shelf.serving(store) as served:
        served.service.current.warm()
        old = weakref.ref(served.service.current.release)
        assert served.get("/v1/items/new").status == 404
        assert served.post("/v1/reload", {}).json["swapped"] is False
        assert shelf.grow(store, [*IDS, "new"]) == "0002"
        assert served.get("/ready").json["release"] == "0001"
        assert served.post("/v1/reload", {}).json == {
            "release": "0002",
            "run": "sasrec-text-001",
            "swapped": True,
        }
        assert served.get("/v1/items/new").json["release"] == "0002"
        everything = {"user": "u01", "k": len(IDS) + 1, "exclude_seen": False}
        found = served.post("/v1/recommend", everything).json
        assert found["release"] == "0002"
        assert "new" in {each["id"] for each in found["items"]}
        assert "new" in {each["id"] for each in served.get("/v1/similar/i003", k=50).json["items"]}
        assert old() is None  # and with it what it had mapped
        assert figure(served, "dualview_snapshots_open") == 1
        assert figure(served, 'dualview_reloads_total{outcome="swapped"}') == 1


def test_a_request_in_hand_is_answered_by_the_release_it_began_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shelf.serving(store, workers=2) as served:
        served.service.current.warm()
        cards, begun, gate = served.service.current.cards, threading.Event(), threading.Event()
        plain = cards.of

        def slow(rows: list[int]) -> list[dict[str, object]]:
            begun.set()
            gate.wait()
            return plain(rows)

        monkeypatch.setattr(cards, "of", slow)
        found: list[Answer] = []
        asking = threading.Thread(target=lambda: found.append(served.get("/v1/items", limit=50)))
        asking.start()
        begun.wait()
        shelf.grow(store, [*IDS, "new"])
        assert served.post("/v1/reload", {}).json["swapped"]
        assert served.get("/v1/items", limit=50).json["total"] == len(IDS) + 1
        assert figure(served, "dualview_snapshots_open") == 2
        gate.set()
        asking.join()
        assert found[0].json["release"] == "0001"
        assert found[0].json["total"] == len(IDS)
        assert figure(served, "dualview_snapshots_open") == 1


def test_a_release_that_cannot_be_opened_leaves_the_old_one(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with shelf.serving(store) as served:
        served.service.current.warm()
        shelf.grow(store, [*IDS, "new"])
        release = store.release()
        lost = release.paths("text")["index"]
        kept = lost.read_bytes()
        lost.write_bytes(kept[:-1])
        refused = served.post("/v1/reload", {})
        assert refused.status == 503
        assert str(store.root) not in refused.content.decode()
        ready = served.get("/ready").json
        assert ready["release"] == "0001"
        assert ready["failed"]["release"] == "0002"
        assert served.get("/v1/similar/i003").json["release"] == "0001"
        assert figure(served, "dualview_reload_failing") == 1
        lost.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))  # of the right size: only its hash tells
        assert served.post("/v1/reload", {}).status == served.post("/v1/reload", {}).status == 503
        said = [one.getMessage() for one in caplog.records if "reload failed" in one.getMessage()]
        assert len(said) == len(set(said)) == 2  # each once, however often it is looked for
        lost.write_bytes(kept)
        assert served.post("/v1/reload", {}).json["release"] == "0002"
        assert served.get("/ready").json["failed"] is None
        assert figure(served, "dualview_reload_failing") == 0


def test_a_run_that_fails_on_the_new_release_leaves_the_old_one(store: Store) -> None:
    with shelf.serving(store) as served:
        served.service.current.warm()
        assert served.service.current.parts["recommend"] == "ready"
        shelf.grow(store, [*IDS, "new"])
        weights = store.root / "runs" / "sasrec-text-001" / "checkpoint" / "best.safetensors"
        weights.write_bytes(b"spoilt")
        assert served.post("/v1/reload", {}).status == 503
        assert served.post("/v1/recommend", {"user": "u01"}).json["release"] == "0001"
        assert served.get("/ready").json["failed"]["release"] == "0002"


def test_a_look_that_fails_is_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("/secret/path")

    with shelf.serving(store, reload_every=0.05) as served:
        with monkeypatch.context() as patch:
            patch.setattr("recommender.serve.service.mark", fails)
            assert served.post("/v1/reload", {}).error["code"] == "bug"
            assert served.get("/ready").json["failed"] == {"release": "?", "error": "a bug: RuntimeError"}
            assert served.get("/v1/items").status == 200
        assert served.post("/v1/reload", {}).status == 200
        assert served.get("/ready").json["failed"] is None


def test_it_looks_by_itself_and_follows_a_promotion(store: Store) -> None:
    config = Config.of(items="id", width=8, heads=1, layers=1, length=6, epochs=1, seed=1)
    other = fit(store.release(), config, runs.allot(store.root, config.slug), device="cpu")
    with shelf.serving(store, reload_every=0.05) as served:
        assert served.get("/ready").json["run"] == "sasrec-text-001"
        assert served.post("/v1/recommend", {"user": "u01", "run": other.name}).json["run"] == other.name
        runs.promote(store.root, other.name)
        for _ in range(400):
            if served.get("/ready").json["run"] == other.name:
                break
            time.sleep(0.05)
        found = served.post("/v1/recommend", {"user": "u01"}).json
        assert (found["run"], found["release"]) == (other.name, "0001")


def trained(store: Store, seed: int) -> Path:
    """The folder of a new run that knows ids."""
    config = Config.of(items="id", width=8, heads=1, layers=1, length=6, epochs=1, seed=seed)
    return fit(store.release(), config, runs.allot(store.root, config.slug), device="cpu").folder


def test_a_run_that_still_trains_takes_nobodys_place_and_better_weights_are_taken_over(store: Store) -> None:
    (store.root / "runs" / runs.PROMOTED).unlink()
    first, other = trained(store, 1), trained(store, 2)
    runs.Run(other).write_metrics(finished=False)
    with shelf.serving(store) as served:
        told = served.post("/v1/recommend", {"user": "u01"}).json
        assert told["run"] == first.name
        weights = "checkpoint/best.safetensors"
        (first / "aside").write_bytes((other / weights).read_bytes())
        (first / "aside").replace(first / weights)
        assert served.post("/v1/reload", {}).json["swapped"]
        assert served.post("/v1/recommend", {"user": "u01"}).json["items"] != told["items"]
        assert not served.post("/v1/reload", {}).json["swapped"]
        assert served.post("/v1/recommend", {"user": "u01", "run": "latest"}).json["run"] == other.name
        newest = trained(store, 3)
        assert served.post("/v1/recommend", {"user": "u01", "run": "latest"}).json["run"] == newest.name
        assert served.post("/v1/reload", {}).json["run"] == newest.name


def test_an_open_run_answers_while_another_is_opened(store: Store) -> None:
    with shelf.serving(store) as served:
        snapshot = served.service.current
        snapshot.warm()
        with snapshot._opening:  # as it is held for seconds while a model is loaded
            assert served.post("/v1/recommend", {"user": "u01"}).status == 200


def test_what_was_forgotten_is_no_longer_served(store: Store) -> None:
    with shelf.serving(store) as served:
        served.service.current.warm()
        assert served.get("/v1/users/u03/history").status == served.get("/v1/items/i004").status == 200
        forget(store, users=["u03"], items=["i004"])
        assert served.post("/v1/reload", {}).json["swapped"]
        assert served.get("/ready").json["release"] == "0001"
        assert served.get("/v1/users/u03/history").status == served.get("/v1/items/i004").status == 404
        assert served.get("/v1/items/i004/picture").status == 404


def test_a_release_that_was_asked_for_by_name_stays(store: Store) -> None:
    shelf.grow(store, [*IDS, "new"])
    with shelf.serving(store, release="1") as served:
        assert served.post("/v1/reload", {}).json == {
            "release": "0001",
            "run": "sasrec-text-001",
            "swapped": False,
        }
    with pytest.raises(DualviewError, match="there is no release"), shelf.serving(store, release="none"):
        pass
