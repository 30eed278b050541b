"""Preferences in a store: what is asked when, what is kept, and what makes it others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dualview.store import Store
from featurestore import preferences as stored
from featurestore.errors import BadInput, CellError, NotFound
from ingest.describe import base
from ingest.describe.base import Answer
from recommender.events import EventLog
from recommender.msr.preferences import Preferences, latest, recipe_of
from recommender.msr.preferences_recipe import PreferenceOptions, shortened
from recommender.msr.preferences_run import plan
from recommender.msr.preferences_show import states_of
from recommender.splits import leave_one_out
from tests.ingest import tiny_vlms
from tests.ingest.faulty_endpoint import ANSWERED, serving
from tests.recommender import tastes
from tests.recommender.tastes import Killed, Teller, TellerMaker, answer_to, make, rows, text

LOOP = Answer("the same again " * 20, "stop", 5, 60, 0.1)
SORRY = Answer("I'm sorry, but I can't help with that.", "stop", 5, 9, 0.1)
BUSY = CellError("http_503", "the endpoint is overloaded", transient=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shops") / "store"
    tastes.shop(root)
    return root


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    shutil.copytree(built, tmp_path / "store")
    return Store.open(tmp_path / "store")


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Teller:
    maker = TellerMaker()
    monkeypatch.setitem(base._makers, "teller", maker)
    return maker.teller


def again(monkeypatch: pytest.MonkeyPatch) -> Teller:
    maker = TellerMaker()
    monkeypatch.setitem(base._makers, "teller", maker)
    return maker.teller


def next_day(store: Store, *, items: pa.Table | None = None, events: pa.Table | None = None) -> None:
    store.ingest(items, events)
    store.materialize()
    store.publish()


def split_of(store: Store) -> Any:
    return leave_one_out(EventLog.from_release(store.release()))


def asked(teller: Teller) -> list[str]:
    return [text(request) for request in teller.asked]


# ---- what is asked


def test_each_step_reads_a_block_and_the_text_before_it(store: Store, teller: Teller) -> None:
    report = make(store, users=["u0"], points=["now"])
    assert (report.states, report.ok, report.steps) == (3, 3, 3)
    first, second, third = asked(teller)
    listed = [
        "\n".join(f"- thing i{n:02d}\n  blurb: made of i{n:02d}" for n in each)
        for each in ((0, 1, 2), (3, 4, 5))
    ]
    assert listed[0] in first
    assert "preference so far:" not in first
    assert listed[1] in second
    assert f"so far: {answer_to(first).text}\n" in second
    assert f"so far: {answer_to(second).text}\n" in third
    assert "- thing i06" in third
    kept = rows(store)
    assert [row["item_ids"] for row in kept] == [["i00", "i01", "i02"], ["i03", "i04", "i05"], ["i06"]]
    assert [row["times"] for row in kept] == [[100, 100, 101], [101, 102, 102], [103]]
    assert [(row["begin"], row["end"]) for row in kept] == [(0, 3), (3, 6), (6, 7)]
    assert [row["reads"] for row in kept] == [None, kept[0]["state_id"], kept[1]["state_id"]]
    assert kept[0]["raw"] == kept[0]["value"]
    assert (kept[0]["finish_reason"], kept[0]["completion_tokens"]) == ("stop", 4)


def test_a_step_of_all_users_is_one_batch(store: Store, teller: Teller) -> None:
    report = make(store, points=["now"])
    assert report.users == 5
    assert teller.batches == [5, 3, 1]


def test_directly_everything_is_asked_at_once(store: Store, teller: Teller) -> None:
    make(store, users=["u0"], points=["now"])
    report = make(store, users=["u0"], direct=True, points=["test", "now"])
    assert (report.states, report.steps) == (2, 1)
    for said, count in zip(sorted(asked(teller)[3:], key=len), (6, 7), strict=True):
        assert said.count("- thing") == count
    assert recipe_of(store, variant="direct") != recipe_of(store)
    assert latest(store, ["u0"], variant="direct") != latest(store, ["u0"])


def test_a_capped_history_is_of_the_latest_events_in_order(store: Store, teller: Teller) -> None:
    make(store, users=["u0"], direct=True, last=4, points=["now"])
    [said] = asked(teller)
    assert [line for line in said.split("\n") if "- thing" in line] == [
        f"- thing i0{n}" for n in (3, 4, 5, 6)
    ]
    make(store, users=["u0"], last=4, points=["now"])
    assert [row["item_ids"] for row in rows(store) if row["start"] == 4] == [["i04", "i05", "i06"]]


def test_an_items_summary_stands_beside_its_title(store: Store, teller: Teller) -> None:
    make(store, users=["u4"], summary="summary", points=["now"])
    [said] = asked(teller)
    assert "- thing i00\n  summary: thing i00 is made of i00\n" in said
    [recipe] = stored.recipes(store.root).values()
    assert recipe.upstream == [("summary", store.release().facts("summary")["recipe_id"])]


def test_an_items_text_is_cut_to_so_many_words() -> None:
    assert shortened("one two\nthree four", 9) == "one two\nthree four"
    assert shortened("one two\nthree four", 3) == "one two\nthree ..."
    assert shortened("one two\nthree four", 2) == "one two ..."


def test_users_are_drawn_the_same_ones_and_more_for_a_larger_number(store: Store, teller: Teller) -> None:
    def drawn(count: int) -> set[str]:
        make(store, sample=count, points=["now"])
        return {row["user_id"] for row in rows(store)}

    two = drawn(2)
    three = drawn(3)
    assert len(two) == 2
    assert len(three) == 3
    assert two < three


# ---- what is asked again


def test_nothing_is_asked_twice(store: Store, teller: Teller) -> None:
    report = make(store)
    count = len(teller.asked)
    before = rows(store)
    second = make(store)
    assert len(teller.asked) == count == report.states == second.current
    assert rows(store) == before
    assert not list((store.root / "spool").glob("*"))


def test_one_new_event_continues_from_the_last_whole_block(store: Store, teller: Teller) -> None:
    make(store, points=["now"])
    known = set(asked(teller))
    event = {"user_id": ["u0", "u1"], "item_id": ["i11", "i11"], "timestamp": [999, 999]}
    next_day(store, events=pa.table(event))
    teller.asked.clear()
    report = make(store, points=["now"])
    assert report.ok == 2
    assert {row["user_id"] for row in rows(store)} >= {"u0", "u1"}
    for said, whole in zip(sorted(asked(teller)), ("i06", "i06"), strict=True):
        assert "- thing i11" in said
        assert whole in said
        assert said.count("- thing") in (2, 3)  # the block that was not full, and the new event
        assert said not in known


def test_an_edited_item_makes_other_what_comes_from_it_on(store: Store, teller: Teller) -> None:
    make(store)
    before = {row["state_id"]: row for row in rows(store)}
    next_day(store, items=tastes.items(i03="another thing"))
    teller.asked.clear()
    report = make(store)
    touched = [row for row in before.values() if "i03" in row["item_ids"]]
    later = {row["state_id"] for row in touched}
    for row in sorted(before.values(), key=lambda row: row["step"]):
        if row["previous"] in later:
            later.add(row["state_id"])
    assert 0 < len(later) < len(before)
    assert report.ok == len(teller.asked) == len(later)
    assert report.current == len(before) - len(later)
    assert all(row in rows(store) for row in before.values()), "what another release says is kept"


def test_a_late_event_makes_other_what_comes_from_it_on(store: Store, teller: Teller) -> None:
    make(store, users=["u0"], points=["now"])
    event = {"user_id": ["u0"], "item_id": ["i11"], "timestamp": [101]}  # behind those of the same time
    next_day(store, events=pa.table(event))
    teller.asked.clear()
    report = make(store, users=["u0"], points=["now"])
    assert (report.current, report.ok) == (1, 2)
    assert [row["item_ids"] for row in rows(store) if row["step"] == 2][-1] in (
        ["i03", "i11", "i04"],
        ["i03", "i04", "i05"],
    )


@pytest.mark.parametrize(
    "other", [{"prompt": "mine.md"}, {"block": 2}, {"options": {"words": 30}}, {"item_words": 3}]
)
def test_another_prompt_or_option_is_another_recipe(
    store: Store, teller: Teller, other: dict[str, Any]
) -> None:
    (store.root / "mine.md").write_text("## user\nBefore: {preference?}\n{items}\n")
    make(store, users=["u0"])
    known = len(teller.asked)
    assert make(store, users=["u0"], **other).current == 0
    assert len(teller.asked) > known
    first, second = stored.recipes(store.root)
    assert recipe_of(store).id == second
    assert recipe_of(store, recipe=first[:6]).id == first
    assert {row["recipe"] for row in rows(store)} == {first, second}


# ---- what goes wrong


def test_a_bad_answer_is_that_states_error_and_is_passed_over(store: Store, teller: Teller) -> None:
    teller.bad = {"- thing i03\n  blurb: made of i03\n- thing i04": SORRY}
    report = make(store, points=["now"])
    assert report.error == 2  # u0's second block, and u1's first
    assert {error["code"] for error in report.errors} == {"refused"}
    assert {error["user"] for error in report.errors} == {"u0", "u1"}
    mine = [row for row in rows(store) if row["user_id"] == "u0"]
    assert [row["status"] for row in mine] == ["ok", "error", "ok"]
    assert mine[2]["reads"] == mine[0]["state_id"]
    assert mine[2]["previous"] == mine[1]["state_id"]
    assert mine[1]["raw"] == SORRY.text
    assert latest(store, ["u0"])["u0"] == mine[2]["value"]
    assert {"u2", "u3", "u4"} <= latest(store).keys()

    teller.bad = {}
    teller.asked.clear()
    assert make(store, points=["now"]).failed == 2
    assert not teller.asked
    make(store, points=["now"], failed=True)
    assert len(teller.asked) == 4, "the two, and what came after each"
    assert len([row for row in rows(store) if row["user_id"] == "u0"]) == 4
    assert latest(store, ["u0"])["u0"] != mine[2]["value"]


@pytest.mark.parametrize("bad", [BUSY, LOOP], ids=["busy", "loop"])
def test_what_may_pass_holds_up_its_user_three_times(
    store: Store, teller: Teller, bad: Answer | CellError
) -> None:
    teller.bad = {"- thing i03\n  blurb: made of i03\n- thing i04\n  blurb: made of i04\n- thing i05": bad}
    found = [make(store, users=["u0"], points=["now"]) for _ in range(3)]
    assert [report.error for report in found] == [1, 1, 1]
    assert [report.waiting for report in found] == [1, 1, 0]
    assert found[2].ok == 1, "given up, and passed over"
    teller.asked.clear()
    assert make(store, users=["u0"], points=["now"]).failed == 1
    assert not teller.asked


def test_what_says_nothing_of_its_items_is_passed_over(store: Store, teller: Teller) -> None:
    (store.root / "summary.md").write_text(tastes.SUMMARY)
    empty = tastes.items()
    blank = pa.array(["", "", "", *empty["title"].to_pylist()[3:]])
    next_day(store, items=empty.set_column(1, "title", blank).set_column(2, "blurb", blank))
    report = make(store, users=["u0"], points=["now"])
    assert (report.no_input, report.ok) == (1, 2)
    assert "preference so far:" not in asked(teller)[0]


# ---- what was paid for is kept


@pytest.mark.parametrize("death", [1, 4, 9])
def test_a_call_that_died_goes_on_where_it_stood(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, death: int
) -> None:
    other = Store.open(shutil.copytree(store.root, tmp_path / "other"))
    whole = again(monkeypatch)
    make(other)
    total = len(whole.asked)
    dying = again(monkeypatch)
    dying.dies_at = death
    with pytest.raises(Killed):
        make(store, commit_rows=2)
    lively = again(monkeypatch)
    make(store, commit_rows=2)
    assert len(dying.asked) - 1 + len(lively.asked) == total
    assert rows(store) == rows(other)
    assert not list((store.root / "spool").glob("*"))


def test_a_price_has_to_be_agreed_to_and_bounds_what_is_asked(store: Store, teller: Teller) -> None:
    priced = {"options": {"price_per_million_output": 1_000_000.0, "max_tokens": 10}}
    with pytest.raises(BadInput, match="has a price") as raised:
        make(store, **priced)
    assert "--max-cost" in (raised.value.remedy or "")
    told = plan(store, PreferenceOptions.of(backend="teller", **priced))
    report = make(store, max_cost=10.0, **priced)
    assert report.cost is not None
    assert 10 <= report.cost <= 14
    assert report.waiting
    rest = make(store, yes=True, **priced)
    assert rest.waiting == 0
    assert rest.cost is not None
    assert told.cost is not None
    assert rest.cost + report.cost <= told.cost
    assert make(store, **priced).computed == 0, "what costs nothing needs no word"


def test_a_plan_asks_nobody_and_counts_what_would_be_asked(store: Store, teller: Teller) -> None:
    told = plan(store, PreferenceOptions.of(backend="teller"))
    assert not teller.asked
    assert not store.tables.exists(stored.TABLE)
    assert not (store.root / stored.LOCK_FILE).exists()
    report = make(store)
    assert (told.users, told.states, told.ask, told.recipe) == (
        report.users,
        report.states,
        report.ok,
        report.recipe,
    )
    assert told.tokens is not None
    assert report.prompt_tokens + report.completion_tokens <= told.tokens * 4  # the teller counts characters
    assert plan(store, PreferenceOptions.of(backend="teller")).ask == 0


# ---- what is read


def test_the_preference_as_of_each_target_is_of_what_came_before_it(store: Store, teller: Teller) -> None:
    make(store)
    split = split_of(store)
    known = Preferences.open(store, log=split.log)
    for which in ("valid", "test"):
        targets = split.rows(which)[split.users(which)]
        for row, preference in zip(targets.tolist(), known.before(targets), strict=True):
            assert preference is not None
            assert preference.behind == 0
            assert preference.end == row - split.log.offsets[split.log.users[row]]
    first = known.before(split.log.offsets[:-1])
    assert first == [None] * split.log.n_users
    earlier = known.before([2])[0]
    assert earlier is None
    fourth = known.before([4])[0]
    assert fourth is not None
    assert (fourth.end, fourth.behind) == (4, 0)
    assert latest(store).keys() == {"u0", "u1", "u2", "u3", "u4"}
    assert known.now(["u0", "nobody"])[1] is None
    with pytest.raises(BadInput, match="rows of the log"):
        known.before([-1])


def test_a_state_that_was_not_computed_for_an_event_serves_it_if_it_ends_before(
    store: Store, teller: Teller
) -> None:
    make(store, users=["u0"], points=["now"])
    found = [each.end if each else None for each in Preferences.open(store).before(range(7))]
    assert found == [None, None, None, 3, 3, 3, 6]


def test_any_events_can_be_asked_for(store: Store, teller: Teller) -> None:
    split = split_of(store)
    rows_ = [2, 5, int(split.log.offsets[1])]  # two of u0's, and u1's first, before which there is nothing
    report = make(store, split=split, rows=rows_)
    assert report.users == 1
    known = Preferences.open(store, log=split.log, users=["u0"])
    assert [each and (each.end, each.behind) for each in known.before(rows_)] == [(2, 0), (5, 0), None]
    assert len(Preferences.open(store, users=[])) == 0
    with pytest.raises(BadInput, match="none of the log's"):
        make(store, split=split, rows=[len(split.log)])


def test_preferences_that_nobody_made_are_named(store: Store, teller: Teller) -> None:
    with pytest.raises(NotFound, match="no recurrent preferences"):
        Preferences.open(store)
    make(store, users=["u0"])
    with pytest.raises(NotFound, match="no direct preferences") as raised:
        latest(store, variant="direct")
    assert "--direct" in (raised.value.remedy or "")
    with pytest.raises(NotFound, match="no recipes of preferences begin with 'zz'"):
        latest(store, recipe="zz")
    with pytest.raises(NotFound, match="no user 'u00'") as raised:
        make(store, users=["u00"])
    assert "did you mean 'u0'" in (raised.value.remedy or "")


def test_a_users_states_are_shown_beside_the_items(store: Store, teller: Teller) -> None:
    make(store, users=["u0"], points=["now"])
    next_day(store, items=tastes.items(i03="another thing"))
    make(store, users=["u0"], points=["now"])
    found = states_of(store, "u0")
    assert [(state.step, state.reads, state.current) for state in found] == [
        (1, None, True),
        (2, 1, True),
        (3, 2, True),
        (2, 1, False),
        (3, 2, False),
    ]
    assert [event.title for event in found[1].events] == ["another thing", "thing i04", "thing i05"]
    with pytest.raises(NotFound, match="no preferences of user 'u1'") as raised:
        states_of(store, "u1")
    assert "--user 'u1'" in (raised.value.remedy or "")


# ---- what cannot be meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "tellr"}, "did you mean 'teller'"),
        ({"backend": "ocr"}, "known: openai, teller, template, transformers"),
        ({"model": "m"}, "remove model"),
        ({"options": {"max_token": 3}}, "did you mean 'max_tokens'"),
        ({"options": {"prompt": "x"}}, "give prompt by itself"),
        ({"prompt": "msr-text"}, "write {items}"),
        ({"prompt": "forgetful.md"}, "ask for everything at once"),
        ({"prompt": "strict.md"}, "make it optional"),
        ({"prompt": "msr-preferenc"}, "did you mean 'msr-preference'"),
        ({"summary": "sumary"}, "did you mean 'summary'"),
        ({"split": "leave-two-out"}, "did you mean 'leave-one-out'"),
        ({"points": ["tset"]}, "known: train, valid, test, now"),
        ({"sample": 0}, "1 or more"),
        ({"backend": "transformers"}, "--model"),
        ({"backend": "template", "prompt": "msr-preference"}, "without {words}"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    store: Store, teller: Teller, given: dict[str, Any], said: str
) -> None:
    (store.root / "forgetful.md").write_text("## user\n{items}\n")
    (store.root / "strict.md").write_text("## user\n{preference}\n{items}\n")
    with pytest.raises((BadInput, NotFound)) as raised:
        make(store, **{"backend": "teller"} | given)
    assert said in (raised.value.remedy or "")
    assert not store.tables.exists(stored.TABLE)


def test_a_prompt_about_users_describes_no_items(store: Store) -> None:
    toml = (store.root / "features.toml").read_text().replace("summary.md", "msr-list")
    (store.root / "features.toml").write_text(toml)
    with pytest.raises(BadInput, match="asks about a user, not about an item"):
        store.materialize()


# ---- the verbs around it


def test_forgotten_users_and_items_are_in_no_preference(store: Store, teller: Teller) -> None:
    make(store)
    next_day(store, items=tastes.items(i05="another thing"))
    make(store)
    (store.root / "spool").mkdir(exist_ok=True)
    spooled = store.root / "spool" / f"{stored.TABLE}__12345678.jsonl"
    spooled.write_text("{}\n")
    report = store.forget(users=["u2"], items=["i01"])
    assert report.rows[stored.TABLE] > 0
    assert report.answers == 1
    assert not spooled.exists()
    kept = rows(store)
    assert kept
    assert "u2" not in {row["user_id"] for row in kept}
    states = {row["state_id"] for row in kept}
    assert all("i01" not in row["item_ids"] and row["reads"] in (None, *states) for row in kept)
    lance = b"".join(
        path.read_bytes() for path in store.tables.path(stored.TABLE).rglob("*") if path.is_file()
    )
    assert b"i01" not in lance
    teller.asked.clear()
    assert make(store).error == 0
    assert "i01" not in "".join(asked(teller))


def test_spooled_answers_about_users_go_with_a_user(store: Store) -> None:
    (store.root / "spool").mkdir(exist_ok=True)
    about_users, about_items = (
        store.root / "spool" / f"{n}__12345678.jsonl" for n in (stored.TABLE, "summary")
    )
    for path in (about_users, about_items):
        path.write_text("{}\n")
    assert store.forget(users=["u2"]).answers == 1
    assert not about_users.exists()
    assert about_items.exists()


def test_the_other_verbs_bear_with_preferences(store: Store, teller: Teller, tmp_path: Path) -> None:
    make(store)
    before = rows(store)
    assert store.publish().name == "0001", "a release does not hold them: nothing is new"
    store.gc(old_recipes=True)
    assert rows(store) == before
    [recipe] = stored.recipes(store.root).values()
    assert store.artifacts.has(recipe.artifacts["prompt"])
    assert make(store).computed == 0
    next_day(store, events=pa.table({"user_id": ["u4"], "item_id": ["i11"], "timestamp": [999]}))
    make(store)
    assert len(rows(store)) > len(before)
    assert store.rollback("0001").unpublished == []
    teller.asked.clear()
    assert make(store).computed == 0, "the states of the old log are still there"
    store.export(tmp_path / "out", to="release")
    assert store.status().current
    assert store.errors() == []
    assert not store.diff("0001", "today").to_dict()["events"]["added"]
    store.trace("item:i00")
    assert store.sql("SELECT count(*) n FROM preferences").to_pylist()[0]["n"] > len(before)
    assert store.history(verb="preferences")[0]["variant"] == "recurrent"
    assert "u0" not in str(store.history(verb="preferences"))


@pytest.fixture(scope="module")
def llm() -> Path:
    return tiny_vlms.llm()


def test_an_endpoint_is_asked_over_http(store: Store) -> None:
    (store.root / "mine.md").write_text("## user\n{preference?}\n{items}\n")
    with serving() as server:
        options = {"base_url": server.url, "concurrency": 2}
        given: dict[str, Any] = {"model": "m", "prompt": "mine.md", "options": options}
        report = make(store, "openai", users=["u0", "u1"], points=["now"], **given)
        assert report.ok == report.states == len(server.calls) == 5
        said = [body["messages"][0]["content"] for body in server.bodies]
    assert sum(ANSWERED in each for each in said) == 3, "what was answered before is read"


def test_a_text_model_answers_the_same_in_any_batch(store: Store, llm: Path, tmp_path: Path) -> None:
    other = Store.open(shutil.copytree(store.root, tmp_path / "other"))
    given: dict[str, Any] = {
        "model": str(llm),
        "options": {"max_tokens": 8, "refusals": []},
        "points": ["now"],
    }
    report = make(store, "transformers", batch_size=1, **given)
    make(other, "transformers", batch_size=4, **given)
    assert report.computed == report.states
    assert report.completion_tokens > 0
    kept = rows(store)
    assert [row["raw"] for row in kept] == [row["raw"] for row in rows(other)]
    assert len({row["raw"] for row in kept}) > 1
