"""What `materialize` would do, said before it does it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from featurestore.errors import BadInput, ModelUnavailable
from featurestore.store import Store
from ingest import estimate as estimates
from ingest.encode import base
from ingest.estimate import Usage, Work, estimate
from ingest.materialize import materialize
from tests.ingest import catalogue
from tests.untouched import untouched


@pytest.fixture
def filled(store: Store) -> Store:
    catalogue.fill(store)
    return store


@pytest.fixture
def seen() -> Iterator[catalogue.SeenMaker]:
    """A text encoder that remembers what it was given."""
    maker = catalogue.SeenMaker()
    base._makers[("embed_text", "seen")] = maker
    yield maker
    del base._makers[("embed_text", "seen")]


def declare(store: Store, text: str) -> None:
    (store.root / "features.toml").write_text(text)


SEEN = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "seen"\n'


def test_it_counts_what_materialize_then_computes_and_writes_nothing(filled: Store) -> None:
    with untouched(filled.root):
        told = {f.feature: f for f in estimate(filled).features}
    done = {f.feature: f for f in materialize(filled).features}
    for name, found in done.items():
        assert told[name].cells == found.computed == 6
        assert told[name].no_input == found.no_input
        assert told[name].resolve == "never resolved"
        assert told[name].usage.rate
        assert told[name].usage.seconds
        assert told[name].usage.tokens is None
    assert told["image"].recipe == done["image"].recipe, "it was drafted as it was made"
    assert told["text"].recipe is None, "a fit decides it"
    assert told["text"].inputs == 4, "equal texts are computed once"


def test_of_what_is_current_nothing_is_loaded_or_computed(filled: Store, seen: catalogue.SeenMaker) -> None:
    declare(filled, SEEN)
    materialize(filled)
    seen.encoder.texts.clear()
    with untouched(filled.root):
        told = estimate(filled)
    assert (told.cells, told.seconds) == (0, 0.0)
    assert seen.encoder.texts == []


def test_an_edited_title_is_one_stale_cell(filled: Store, seen: catalogue.SeenMaker) -> None:
    declare(filled, SEEN)
    materialize(filled)
    catalogue.fill(filled, catalogue.edited("a", title="crimson shoe"))
    seen.encoder.texts.clear()
    told = estimate(filled).features[0]
    assert (told.stale, told.missing, told.inputs, told.resolve) == (1, 0, 1, None)
    assert set(seen.encoder.texts) == {"crimson shoe\nbrand: Runwell\ntags: sport, red"}


def test_failed_cells_count_where_they_are_asked_for(filled: Store, seen: catalogue.SeenMaker) -> None:
    import numpy as np

    declare(filled, SEEN)
    seen.encoder.answer = lambda texts: np.full((len(texts), 3), np.nan, np.float32)
    materialize(filled)
    assert estimate(filled).cells == 0
    assert estimate(filled, failed=True).features[0].failed == 5


def test_the_sample_is_bounded_and_the_rest_is_taken_to_be_like_it(
    filled: Store, seen: catalogue.SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(filled, SEEN)
    rows = [{"item_id": f"x{n}", "title": f"thing {n}"} for n in range(50)]
    catalogue.fill(filled, rows)
    monkeypatch.setattr(estimates, "WARM", 4)
    monkeypatch.setattr(estimates, "SAMPLE", 8)
    told = estimate(filled).features[0]
    assert told.usage.sample == 8
    assert len(seen.encoder.texts) == 4 + 8
    assert (told.usage.seconds or 0) >= told.inputs / (told.usage.rate or 1) > 0


def test_a_model_that_is_not_here_is_said_and_not_fetched(
    filled: Store, seen: catalogue.SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ModelUnavailable("model 'x' is not on this machine yet", remedy="fetch it")

    declare(filled, SEEN)
    monkeypatch.setattr(seen, "resolve", away)
    told = estimate(filled).features[0]
    assert (told.missing, told.usage.seconds) == (6, None)
    assert "not on this machine" in told.usage.notes[0]


def test_a_kind_of_its_own_says_tokens_and_cost(
    filled: Store, seen: catalogue.SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paid(work: Work) -> Usage:
        return Usage(sample=1, rate=2.0, seconds=len(work.ids) / 2, tokens=100 * len(work.ids), cost=0.25)

    declare(filled, SEEN)
    monkeypatch.setitem(estimates._estimators, "embed_text", paid)
    told = estimate(filled).to_dict()
    assert (told["tokens"], told["cost"], told["seconds"]) == (400, 0.25, 2.0)
    assert json.loads(json.dumps(told)) == told


def test_a_definition_that_cannot_be_meant_is_refused(filled: Store) -> None:
    declare(filled, SEEN.replace('"seen"', '"tfidf_svdd"'))
    with pytest.raises(BadInput, match="tfidf_svdd"):
        estimate(filled)


def test_a_store_without_items_has_nothing_to_compute(store: Store) -> None:
    with untouched(store.root):
        told = estimate(store)
    assert told.cells == 0
    assert [f.resolve for f in told.features] == ["never resolved", "never resolved"]
