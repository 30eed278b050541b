"""The demo's customers: their log follows the model that the docstring states."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from dualview.demo.catalogue import Catalogue, CatalogueSettings, draw_catalogue
from dualview.demo.taste import (
    DAY,
    EPOCH,
    STYLE,
    THEME,
    Log,
    Shop,
    Taste,
    TasteSettings,
    draw_log,
    write_events,
)
from dualview.demo.truth import attained, oracle, read_truth, target_ranks, write_truth

USERS = 400


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return draw_catalogue(CatalogueSettings())


@pytest.fixture(scope="module")
def log(catalogue: Catalogue) -> Log:
    return draw_log(catalogue, TasteSettings(users=USERS))


def _histories(log: Log) -> list[np.ndarray]:
    return np.split(log.items, log.offsets[1:-1])


def test_the_same_seed_gives_the_same_log(catalogue: Catalogue, log: Log) -> None:
    again = draw_log(catalogue, TasteSettings(users=USERS))
    assert np.array_equal(log.items, again.items)
    assert np.array_equal(log.times, again.times)


def test_users_have_8_to_40_events_and_never_take_an_item_twice(log: Log) -> None:
    lengths = np.diff(log.offsets)
    assert len(lengths) == USERS
    assert lengths.min() >= 8
    assert lengths.max() <= 40
    assert all(len(set(history.tolist())) == len(history) for history in _histories(log))


def test_times_of_a_user_strictly_increase_and_nothing_is_taken_before_its_launch(
    catalogue: Catalogue, log: Log
) -> None:
    same_user = np.diff(log.users) == 0
    assert (np.diff(log.times)[same_user] > 0).all()
    day = (log.times - EPOCH) / DAY
    assert (day >= catalogue.latents.launch_day[log.items]).all()
    assert day.max() < catalogue.settings.days


def test_some_items_were_never_sold_and_popularity_has_a_long_tail(catalogue: Catalogue) -> None:
    whole = draw_log(catalogue)
    sold = np.bincount(whole.items, minlength=len(catalogue.rows))
    late = catalogue.latents.launch_day > 0
    assert 0.03 < late.mean() < 0.06
    assert (sold[catalogue.latents.launch_day > catalogue.settings.days] == 0).all()
    assert np.median(sold[late]) < np.median(sold[~late]) / 5
    assert np.sort(sold)[::-1][:400].sum() > 0.4 * sold.sum(), (
        "a fifth of the items makes two fifths of the sales"
    )


def test_the_next_item_shares_style_or_theme_with_the_last_one_far_more_often_than_chance(
    catalogue: Catalogue, log: Log
) -> None:
    latents = catalogue.latents
    before, after = log.items[:-1], log.items[1:]
    within = np.diff(log.users) == 0
    for name in ("style", "theme"):
        column = getattr(latents, name)
        assert (column[before] == column[after])[within].mean() > 6 / 40, name
    assert (latents.factory[before] == latents.factory[after])[within].mean() < 1.3 / 12


def test_taste_is_individual_in_styles_themes_and_kinds(catalogue: Catalogue, log: Log) -> None:
    latents = catalogue.latents
    for column, size in ((latents.style, 40), (latents.theme, 40), (latents.category, 10)):
        concentration = np.mean(
            [(np.bincount(column[h], minlength=size) ** 2).sum() / len(h) ** 2 for h in _histories(log)]
        )
        shuffled = np.split(np.random.default_rng(0).permutation(log.items), log.offsets[1:-1])
        by_chance = np.mean(
            [(np.bincount(column[h], minlength=size) ** 2).sum() / len(h) ** 2 for h in shuffled]
        )
        assert concentration > 1.3 * by_chance


def test_the_distribution_sums_to_one_and_leaves_out_what_was_taken_or_is_not_sold_yet(
    catalogue: Catalogue, log: Log
) -> None:
    shop = Shop(catalogue.latents)
    history = _histories(log)[0]
    chances = shop.distribution(log.settings, log.tastes[0], history, 100.0, 0.2)
    assert chances.sum() == pytest.approx(1)
    assert (chances[history] == 0).all()
    assert (chances[catalogue.latents.launch_day > 100] == 0).all()


def test_steps_are_drawn_with_the_probabilities_that_distribution_states(catalogue: Catalogue) -> None:
    """The second event of many users of one and the same taste, counted by style, against the stated
    probabilities."""
    settings = TasteSettings(users=1500)
    log = draw_log(catalogue, settings)
    shop, latents = Shop(catalogue.latents), catalogue.latents
    expected, seen = 0.0, 0
    for user, start in enumerate(log.offsets[:-1].tolist()):
        first, second = int(log.items[start]), int(log.items[start + 1])
        if log.times[start + 1] - log.times[start] > 0.2 * DAY:  # a new session: another draw
            continue
        taste: Taste = log.tastes[user]
        chances = shop.distribution(settings, taste, [first], (log.times[start + 1] - EPOCH) / DAY, 0.0)
        expected += chances[latents.style == latents.style[first]].sum()
        seen += int(latents.style[second] == latents.style[first])
    assert expected > 300
    assert seen == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_the_oracle_is_far_above_popularity_and_not_perfect(catalogue: Catalogue, log: Log) -> None:
    found = oracle(catalogue, log)
    assert found["oracle NDCG@10"] > 8 * found["popularity NDCG@10"]
    assert 0.15 < found["oracle NDCG@10"] < 0.6


def test_knowing_only_style_or_only_theme_costs_a_third_and_neither_nearly_all(
    catalogue: Catalogue, log: Log
) -> None:
    both, theme, style, neither = (
        attained(target_ranks(catalogue, log, known))["NDCG"]
        for known in ((STYLE, THEME), (THEME,), (STYLE,), ())
    )
    assert both == pytest.approx(oracle(catalogue, log)["oracle NDCG@10"], abs=1e-4)
    for one in (theme, style):
        assert 0.2 * both < both - one < 0.5 * both
        assert neither < 0.3 * one


def test_who_cannot_tell_styles_gives_items_that_differ_in_nothing_else_equal_chances(
    catalogue: Catalogue, log: Log
) -> None:
    shop, latents = Shop(catalogue.latents, known=[THEME]), catalogue.latents
    chances = shop.distribution(log.settings, log.tastes[0], [0], 100.0, 0.2)
    told = chances / latents.appeal
    _, kinds = np.unique(latents.category * 40 + latents.theme, return_inverse=True)
    compared = 0
    for kind in range(kinds.max() + 1):
        alike = told[(kinds == kind) & (chances > 0)]
        compared += len(alike) > 1
        assert np.ptp(alike) < 1e-12 if len(alike) else True
    assert compared > 100


def test_events_csv_is_in_order_of_time_and_the_truth_reads_back(
    catalogue: Catalogue, log: Log, tmp_path: Path
) -> None:
    write_events(catalogue, log, tmp_path)
    rows = list(csv.DictReader((tmp_path / "events.csv").open(encoding="utf-8")))
    assert len(rows) == len(log.items)
    times = [int(row["timestamp"]) for row in rows]
    assert times == sorted(times)
    write_truth(catalogue, log, tmp_path)
    truth = read_truth(tmp_path)
    item = catalogue.latents.item_ids[5]
    twins = truth.visual_twins(item)
    assert item not in twins
    assert len(twins) == 49
    assert {truth.style[twin] for twin in twins} == {truth.style[item]}
    assert {truth.theme[twin] for twin in truth.textual_twins(item)} == {truth.theme[item]}
    assert truth.oracle["oracle NDCG@10"] > truth.oracle["popularity NDCG@10"]
