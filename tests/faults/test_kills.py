"""A process that dies loses nothing: its verb, run again, leaves a store equal to one that was never disturbed.

It dies at every moment at which something is committed, and at random ones. What a death leaves on the disk at a
moment is what lies there while the process stands still, so the suite copies it at each moment of one run, unless
nothing changed since the one before, and runs the verb again from there (of a verb with very many, from some of
them); with DUALVIEW_SOAK a process dies for each.
DUALVIEW_KILLS is the number of random deaths, DUALVIEW_SEED what they are drawn from; a failure says it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from featurestore import failpoints
from featurestore.store import Store
from tests.conftest import TWO_FEATURES
from tests.faults import processes, scenario, shop
from tests.faults.scenario import IN_FLIGHT, LIFE, Verb

SOAK = "DUALVIEW_SOAK" in os.environ
KILLS = int(os.environ.get("DUALVIEW_KILLS", "20"))
SEED = int(os.environ.get("DUALVIEW_SEED", "0")) or random.randrange(1, 1 << 32)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TOGETHER = 12  # worlds that one child mends
SOME = 20  # moments of a verb with very many that the suite looks at; the soak takes all


@dataclass(frozen=True)
class Stage:
    """A verb, the world before it, and how it goes when nothing disturbs it."""

    verb: Verb
    before: Path
    goods: Path
    expected: dict[str, Any]
    computed: int  # cells
    moments: list[str]
    seconds: float


@dataclass(frozen=True)
class Killed:
    """A world in which a process died. told: where, for whoever reads of a failure."""

    stage: Stage
    world: Path
    told: str


def do(verb: Verb, world: Path, goods: Path) -> Any:
    return verb.run(Store.open(world / "store"), goods)


def watched(
    verb: Verb, world: Path, goods: Path, copies: Path | None = None, wanted: frozenset[int] = frozenset()
) -> tuple[list[str], float]:
    """Run a verb; the names of its moments and its seconds.

    At the `wanted` moments the world is copied to `copies`, if it is another one than at the wanted one before.
    """
    names: list[str] = []
    last: set[tuple[str, int, int, int]] = set()

    def seen(name: str) -> None:
        nonlocal last
        names.append(name)
        if copies is None or len(names) not in wanted:
            return
        now = {_place(path) for path in world.rglob("*")}
        if now != last:
            shutil.copytree(world, copies / str(len(names)))
        last = now

    failpoints.arm(seen)
    begun = time.monotonic()
    do(verb, world, goods)
    return names, time.monotonic() - begun


def _place(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


def again(cases: list[tuple[Verb, Path, Path]]) -> list[tuple[dict[str, Any], int]]:
    """Look at what a kill left and run its verb to the end: the facts, and how many cells that computed."""
    found = []
    for verb, world, goods in cases:
        scenario.check_opens(world / "store")
        done = do(verb, world, goods)
        found.append((verb.facts(Store.open(world / "store")), getattr(done, "computed", 0)))
    return found


def look(verb: Verb, world: Path) -> dict[str, Any]:
    return verb.facts(Store.open(world / "store"))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """The stages of an undisturbed life."""
    home = tmp_path_factory.mktemp("life")
    goods = {day: shop.open_shop(home / day) for day in ("one", "two")}
    worlds = {day: home / f"world {day}" for day in goods}
    for world in worlds.values():
        Store.create(world / "store", TWO_FEATURES)
    for verb in LIFE:
        if (
            verb.day == "one"
        ):  # the first day of the world that sees the second, on files that will be changed
            processes.run(do, verb, worlds["two"], goods["two"])
    shop.restock(goods["two"])
    stages = []
    for verb in LIFE:
        world, before = worlds[verb.day], home / f"before {verb.name}"
        (world / "computed").unlink(missing_ok=True)
        shutil.copytree(world, before)
        names, seconds = processes.run(watched, verb, world, goods[verb.day])
        cells = _computed(world)
        expected = processes.run(look, verb, world)
        stages.append(Stage(verb, before, goods[verb.day], expected, cells, names, seconds))
    return stages


def _computed(world: Path) -> int:
    counted = world / "computed"
    return len(counted.read_bytes()) if counted.exists() else 0


def recover(killed: list[Killed]) -> None:
    """Each verb, run again on the world in which it was killed, brings about what was expected."""
    together = [killed[start : start + TOGETHER] for start in range(0, len(killed), TOGETHER)]

    def mend(cases: list[Killed]) -> None:
        started = [_computed(case.world) for case in cases]
        given = [(case.stage.verb, case.world, case.stage.goods) for case in cases]
        for case, before, (found, computed) in zip(cases, started, processes.run(again, given), strict=True):
            wrong = "\n".join(scenario.differences(found, case.stage.expected))
            assert not wrong, f"{case.told}\n{wrong}"
            repeated = before + computed - case.stage.computed
            assert 0 <= repeated <= IN_FLIGHT, f"{case.told}: {repeated} cells were computed twice"
            shutil.rmtree(case.world)

    processes.each(mend, together)


@pytest.mark.parametrize("place", range(len(LIFE)), ids=[verb.name for verb in LIFE])
def test_a_verb_may_die_at_every_moment_at_which_it_commits(
    life: list[Stage], tmp_path: Path, place: int
) -> None:
    stage = life[place]
    moments = list(range(1, len(stage.moments) + 1))
    assert moments
    if SOAK:

        def die(moment: int) -> None:
            world = tmp_path / str(moment)
            shutil.copytree(stage.before, world)
            while not processes.die_at(moment, do, stage.verb, world, stage.goods):
                shutil.rmtree(world)
                shutil.copytree(stage.before, world)

        processes.each(die, moments)
    else:
        if stage.verb.many:
            moments = random.Random(SEED).sample(moments, SOME)
        shutil.copytree(stage.before, tmp_path / "world")
        given = (tmp_path / "world", stage.goods, tmp_path, frozenset(moments))
        assert len(processes.run(watched, stage.verb, *given)[0]) == len(stage.moments)
        moments = [moment for moment in moments if (tmp_path / str(moment)).exists()]
    told = f"DUALVIEW_SEED={SEED}, {stage.verb.name}, dead at moment"
    recover([Killed(stage, tmp_path / str(at), f"{told} {at}, {stage.moments[at - 1]}") for at in moments])


def test_a_verb_may_die_at_any_moment(life: list[Stage], tmp_path: Path) -> None:
    draw = random.Random(SEED)
    cases = [
        (number, draw.choice(life), draw.random(), draw.choice(SIGNALS)) for number in range(1, KILLS + 1)
    ]

    def die(given: tuple[int, Stage, float, signal.Signals]) -> Killed:
        number, stage, share, sent = given
        world, seconds = tmp_path / str(number), share * stage.seconds
        shutil.copytree(stage.before, world)
        processes.kill_after(seconds, sent, do, stage.verb, world, stage.goods)
        return Killed(
            stage,
            world,
            f"DUALVIEW_SEED={SEED}, death {number}: {stage.verb.name}, {sent.name} after {seconds:.4f} s",
        )

    for start in range(0, len(cases), 100):
        recover(processes.each(die, cases[start : start + 100]))
