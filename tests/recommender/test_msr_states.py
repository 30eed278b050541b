"""Which states there have to be; and that none of them knows of an event at or after the one it is for."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import BadInput
from featurestore.recipe import Recipe
from featurestore.schema import ValueKind
from ingest.describe import prompts
from ingest.describe.base import Answer
from ingest.describe.checks import Checks
from recommender.events import EventLog
from recommender.msr.preferences import Preferences
from recommender.msr.preferences_walk import Walk
from recommender.msr.states import POINTS, Shape, Told, ends_of, nodes
from recommender.splits import global_time, leave_one_out
from tests.recommender.tastes import text

SHAPES = st.builds(
    Shape,
    st.integers(1, 5),
    st.none() | st.integers(1, 14),
)
PROMPT = prompts.parse("## user\nso far {preference?}\n{items}\n", "p")


@given(end=st.integers(1, 60), shape=SHAPES)
def test_blocks_follow_each_other_from_the_windows_start_to_the_event(end: int, shape: Shape) -> None:
    found = nodes(0, [end], shape)
    assert found[0].begin == found[0].start == shape.start(end)
    assert found[-1].end == end
    assert [node.step for node in found] == list(range(1, len(found) + 1))
    for before, node in pairwise(found):
        assert node.previous == before
        assert node.begin == before.end
        assert before.end - before.begin == shape.block
    if shape.last is not None:
        assert end - shape.start(end) <= shape.last
        assert end - shape.start(end) >= min(end, shape.last // 2 + 1)


@given(ends=st.sets(st.integers(1, 40), min_size=1), block=st.integers(1, 5))
def test_states_are_shared_between_the_ends_of_one_window(ends: set[int], block: int) -> None:
    found = nodes(0, ends, Shape(block))
    assert len({node.key for node in found}) == len(found)
    full = max(ends) // block
    assert len(found) == full + sum(end % block > 0 for end in ends)


def test_a_window_that_is_full_drops_its_oldest_half_at_once() -> None:
    shape = Shape(3, 12)
    assert [shape.start(end) for end in (1, 12, 13, 18, 19)] == [0, 0, 6, 6, 12]
    assert [Shape(None, 4).start(end) for end in (3, 4, 5, 9)] == [0, 0, 1, 5]


@pytest.mark.parametrize("given", [{"block": 0}, {"last": 0}])
def test_a_shape_without_events_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        Shape(**given)


# ---- what a state may know

USERS = st.lists(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=9), min_size=1, max_size=3
)


def log_of(users: list[list[tuple[int, int]]]) -> EventLog:
    """users: each a list of (item, time); few times, so that many are tied."""
    rows = [
        {"user_id": f"u{user}", "item_id": f"item{item}", "timestamp": time}
        for user, events in enumerate(users)
        for item, time in events
    ]
    return EventLog.from_table(pa.Table.from_pylist(rows))


def recipe_of(shape: Shape) -> Recipe:
    options: dict[str, Any] = {"variant": shape.variant, "block": shape.block, "last": shape.last}
    return Recipe(
        kind="preference", inputs=("column:title",), encoder="x", options=options, value=ValueKind.TEXT
    )


def made(log: EventLog, shape: Shape, ends: dict[int, set[int]]) -> tuple[Preferences, list[str]]:
    """Preferences whose text is all that was asked for them, and every question."""
    told = Told(log, {item: f"<{item}>" for item in log.item_ids.tolist()})
    wanted = [node for user, asked in ends.items() for node in nodes(user, asked, shape)]
    wanted.sort(key=lambda node: node.step)
    walk = Walk(recipe_of(shape), PROMPT, told, [])
    rows, asked = [], []
    for _, step in groupby(wanted, key=lambda node: node.step):
        for question in walk.questions(list(step), failed=False):
            said = text(walk.request(question, walk.said(question)))
            asked.append(said)
            rows.append(walk.row(question, Answer(said, "stop", 1, 1, 0.0), Checks(generated=False)))
    return Preferences(walk.recipe, told, rows), asked


def every_end(log: EventLog) -> dict[int, set[int]]:
    lengths = (log.offsets[1:] - log.offsets[:-1]).tolist()
    return {user: set(range(1, length + 1)) for user, length in enumerate(lengths)}


@given(users=USERS, shape=SHAPES | st.builds(Shape, st.none(), st.none() | st.integers(1, 5)))
def test_a_preference_is_of_events_before_the_one_it_is_for(
    users: list[list[tuple[int, int]]], shape: Shape
) -> None:
    log = log_of(users)
    known, _ = made(log, shape, every_end(log))
    for row, preference in enumerate(known.before(range(len(log)))):
        first = int(log.offsets[log.users[row]])
        before = [f"<{item}>" for item in log.item_ids[log.items[first:row]]]
        if preference is None:
            assert row == first
            continue
        assert preference.end == row - first
        assert preference.behind == 0
        read = before[shape.start(row - first) :]
        shown = [word for word in preference.text.replace("\n", " ").split() if word.startswith("<")]
        assert sorted(shown) == sorted(read), "all of its window, and nothing else"
        assert preference.until == int(log.times[row - 1])  # type: ignore[index]
        assert preference.until <= int(log.times[row])  # type: ignore[index]


@given(users=USERS, shape=SHAPES, data=st.data())
def test_what_comes_at_or_after_an_event_changes_no_preference_for_it(
    users: list[list[tuple[int, int]]], shape: Shape, data: st.DataObject
) -> None:
    log = log_of(users)
    row = data.draw(st.integers(0, len(log) - 1))
    user = int(log.users[row])
    ordered = sorted(users[user], key=lambda event: event[1])
    kept = ordered[: row - int(log.offsets[user])]
    latest = kept[-1][1] if kept else 0
    other = data.draw(st.lists(st.tuples(st.integers(0, 8), st.integers(latest, 5)), min_size=1, max_size=4))
    changed = log_of([*users[:user], kept + other, *users[user + 1 :]])
    there = int(changed.offsets[user]) + len(kept)
    one = made(log, shape, every_end(log))[0].before([row])[0]
    two = made(changed, shape, every_end(changed))[0].before([there])[0]
    assert one == two


@given(users=USERS, others=USERS, shape=SHAPES)
def test_states_of_another_log_are_not_given(
    users: list[list[tuple[int, int]]], others: list[list[tuple[int, int]]], shape: Shape
) -> None:
    """Rows of one log, read with another: only those whose events stand in it just so, from the window's start on."""
    log, other = log_of(users), log_of(others)
    rows = made(log, shape, every_end(log))[0]
    flat = [row for found in rows._states.values() for row in found]
    told = Told(other, {item: f"<{item}>" for item in other.item_ids.tolist()})
    found = Preferences(recipe_of(shape), told, flat)
    for row, preference in enumerate(found.before(range(len(other)))):
        if preference is not None:
            first = int(other.offsets[other.users[row]])
            there = int(log.offsets[log.user_ids.tolist().index(preference.user)])
            window = slice(preference.start, preference.end)
            mine = other.item_ids[other.items[first:row][window]].tolist()
            assert mine == log.item_ids[log.items[there:][window]].tolist()
            assert preference.end <= row - first


def test_the_points_of_a_split_are_its_targets() -> None:
    log = log_of([[(n, n) for n in range(6)], [(0, 0), (1, 1)], [(3, 0)]])
    split = leave_one_out(log)
    assert ends_of(split, ["train"]) == {0: {3}, 1: {1}}
    assert ends_of(split, ["valid"]) == {0: {4}}
    assert ends_of(split, ["test"]) == {0: {5}}
    assert ends_of(split, POINTS) == {0: {3, 4, 5, 6}, 1: {1, 2}, 2: {1}}
    cut = global_time(log, valid_from=2, test_from=4)
    assert ends_of(cut, ["valid", "test"]) == {0: {2, 4}}
    with pytest.raises(BadInput, match="no point 'tset'"):
        ends_of(split, ["tset"])  # type: ignore[list-item]
