"""The report of a study, from records drawn from known distributions."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import BadInput, NotFound
from recommender import compare, metrics
from recommender.study import arms, bins, figures, panels, printed, report
from recommender.study.findings import Findings, analyse

EVIL = "<script>alert('x')</script>|more"
DATA, BACKBONES, TOWERS, SEEDS = ("baby", "games"), ("sasrec", "gru4rec"), ("id", "text", "both"), (1, 2, 3)
LIFT = {"id": 0.0, "text": 0.0, "both": 0.9}  # how far a tower's targets move up, in units of latent score


def write_cell(
    folder: Path,
    data: str,
    backbone: str | None,
    tower: str | None,
    seed: int | None,
    *,
    users: int = 400,
    lift: float = 0.0,
    noise: float = 0.4,
    test: bool = True,
    seconds: float = 10.0,
    study: str = "small",
    baseline: str | None = None,
    **more: Any,
) -> None:
    """A record as a cell leaves it. Users are the same in all cells of a data set; lift moves their ranks up."""
    shared = np.random.default_rng(sum(map(ord, data)))
    count = np.where(shared.random(users) < 0.1, 0, shared.lognormal(2.3, 1.3, users).astype(int))
    history = shared.integers(3, 30, users)
    base = shared.normal(0, 1.3, users) + 0.25 * np.log1p(count)
    own = np.random.default_rng([0 if seed is None else seed, *f"{backbone} {tower}".encode()])
    blocks, columns = {}, {}
    held = np.arange(users) < users - 5  # the others have no target
    for part in ("valid", "test"):
        latent = (
            base
            + lift * (1.3 - 0.2 * np.log1p(count))
            + own.normal(0, noise, users)
            - (0.1 if part == "test" else 0)
        )
        ranks = np.ceil(np.exp(3.4 - 1.3 * latent)).clip(1, 2000).astype(np.int64)
        members = {
            "items:head": count > 20,
            "items:tail": (count > 0) & (count <= 20),
            "items:cold": count == 0,
        }
        for low, high in ((3, 10), (11, 20), (21, 29)):
            members[f"users:history {low}-{high}"] = (history >= low) & (history <= high)
        members = {name: inside & held for name, inside in members.items()}
        blocks[part] = {
            "users": int(held.sum()),
            "metrics": metrics.from_ranks(ranks[held], (5, 10, 20)),
            "groups": {
                name: {"users": int(inside.sum()), **metrics.from_ranks(ranks[inside], (5, 10, 20))}
                for name, inside in members.items()
            },
        }
        columns[f"rank_{part}"] = (ranks * (held & (test or part == "valid"))).astype(np.int32)
    names = [str(part) for part in (data, baseline, backbone, tower, seed) if part is not None]
    trained = tower is not None
    record = {
        "study": study, "cell": "--".join(names), "data": data, "backbone": backbone, "baseline": baseline,
        "tower": tower, "seed": seed, "config": {"causal": True},
        "split_hash": f"split of {data}", "protocol": "full ranking of 2,000 items",
        "best_epoch": 7 if trained else None,
        "epochs": 17 if trained else None, "valid": blocks["valid"], "test": blocks["test"] if test else None,
        "cost": {
            "parameters": 120_000 if trained else 0, "epoch_seconds": seconds / 7 if trained else None,
            "seconds_to_best": seconds if trained else None, "seconds": seconds * 2.2, "threads": 1,
        },
    } | more  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{'--'.join(names)}.json").write_text(json.dumps(record))
    table = {
        **columns,
        "history": (history * held).astype(np.int32),
        "target_count": (count * held).astype(np.int32),
    }
    pq.write_table(pa.table(table), folder / f"{'--'.join(names)}.ranks.parquet")


def write_grid(
    folder: Path,
    *,
    data: Sequence[str] = DATA,
    backbones: Sequence[str] = BACKBONES,
    lifts: Mapping[str, float] = LIFT,
    seeds: Sequence[int] = SEEDS,
    **more: Any,
) -> None:
    for d in data:
        write_cell(folder, d, None, None, None, baseline="popularity", lift=-1.5, **more)
        for b in backbones:
            for k, (tower, lift) in enumerate(lifts.items()):
                for seed in seeds:
                    write_cell(folder, d, b, tower, seed, lift=lift, seconds=10.0 * 2**k + seed, **more)


def grid(**changes: Any) -> report.Grid:
    whole = {
        "name": "small",
        "reference": "id",
        "data": DATA,
        "backbones": BACKBONES,
        "towers": TOWERS,
        "seeds": SEEDS,
    }
    return report.Grid(**(whole | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "cells"
    write_grid(folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    return analyse(grid(), report.read_cells(folder))


@pytest.fixture(scope="module")
def out(folder: Path, found: Findings) -> Path:
    report.write_found(found, folder.parent / "report")
    return folder.parent / "report"


def row_of(rows: Sequence[Mapping[str, Any]], tower: str, table: str = "baby · sasrec") -> Mapping[str, Any]:
    (row,) = [row for row in rows if row["tower"] == tower and row["table"] == table]
    return row


def edited(
    folder: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """The cells, each passed through `edit`; what it answers None for is left out."""
    return [cell for one in report.read_cells(folder) if (cell := edit(dict(one))) is not None]


def test_a_row_holds_the_mean_and_deviation_over_seeds_of_test(folder: Path, found: Findings) -> None:
    blocks = [json.loads((folder / f"baby--sasrec--both--{seed}.json").read_text()) for seed in SEEDS]
    row = row_of(found.rows, "both")
    assert found.part == "test"
    for metric in ("NDCG@10", "HR@10"):
        values = [block["test"]["metrics"][metric] for block in blocks]
        assert row[metric] == pytest.approx(np.mean(values))
        assert row[f"{metric} std"] == pytest.approx(np.std(values, ddof=1))
    assert row["valid NDCG@10"] == pytest.approx(np.mean([b["valid"]["metrics"]["NDCG@10"] for b in blocks]))
    assert row["tail"] == pytest.approx(
        np.mean([b["test"]["groups"]["items:tail"]["NDCG@10"] for b in blocks])
    )
    assert row["mid"] == pytest.approx(
        np.mean([b["test"]["groups"]["users:history 11-20"]["NDCG@10"] for b in blocks])
    )
    assert row["seconds_to_best"] == pytest.approx(42)
    assert row["parameters"] == 120_000


def test_the_comparison_is_that_of_the_users_ranks(folder: Path, found: Findings) -> None:
    def read(file: Path) -> np.ndarray:
        ranks = pq.read_table(file)["rank_test"].to_numpy()
        return ranks[ranks > 0]

    def values(tower: str) -> np.ndarray:
        files = [folder / f"baby--sasrec--{tower}--{seed}.ranks.parquet" for seed in SEEDS]
        return compare.over_seeds([compare.per_user(read(f), "NDCG@10") for f in files])

    expected = compare.paired(values("both"), values("id"))
    row = row_of(found.rows, "both")
    assert (row["p"], row["gain"], row["gain_low"]) == (expected.p, expected.gain, expected.gain_low)
    assert row["gain"] == pytest.approx(row["NDCG@10"] / row_of(found.rows, "id")["NDCG@10"] - 1)


def test_the_family_is_every_tower_against_the_reference_in_every_table(found: Findings) -> None:
    main = [one for one in found.comparisons if one["metric"] == "NDCG@10"]
    assert len(main) == 2 * 4
    assert all(one["family"] == 8 for one in main)
    assert [one["p_holm"] for one in main] == compare.holm([one["p"] for one in main])
    assert "8 comparisons" in found.family
    assert {one["metric"] for one in found.comparisons} == {"NDCG@10", "HR@10", "MRR@10"}


def test_a_tower_that_is_better_wins_everywhere_and_one_that_is_not_does_not(
    found: Findings, folder: Path
) -> None:
    wins = {row["tower"]: row for row in found.wins}
    assert wins["both"]["above"] == wins["both"]["significantly_above"] == wins["both"]["compared"] == 4
    assert wins["both"]["best"] == wins["both"]["significantly_best"] == 4
    assert wins["text"]["significantly_above"] == wins["text"]["significantly_below"] == 0
    assert wins["id"]["compared"] == 0
    assert "both is above id in 4 of 4 tables, significantly in 4" in printed.headline(found)
    best = analyse(grid(reference="both"), report.read_cells(folder))
    assert printed.headline(best).startswith("No tower is above both: of ")


def test_floors_are_rows_that_nothing_is_compared_with(found: Findings) -> None:
    row = row_of(found.rows, "popularity")
    assert row["floor"]
    assert row["NDCG@10"] < row_of(found.rows, "id")["NDCG@10"]
    assert row["p"] is None
    assert row["NDCG@10 std"] is None
    assert not [one for one in found.comparisons if "popularity" in (one["tower"], one["against"])]


def test_bins_hold_every_user_once_and_their_mean_is_the_whole(found: Findings) -> None:
    (binned,) = [one["rows"] for one in found.bins if one["table"] == "baby · sasrec"]
    assert sum(row["users"] for row in binned) == 395
    assert sum(row["share"] for row in binned) == pytest.approx(1)
    whole = sum(row["share"] * row["values"]["both"] for row in binned)
    assert whole == pytest.approx(row_of(found.rows, "both")["NDCG@10"])
    assert binned[0]["bin"] == "cold"
    assert binned[0]["values"]["both"] == pytest.approx(row_of(found.rows, "both")["cold"])


def test_bins_are_cut_where_their_names_say() -> None:
    counts = np.array([0, 1, 5, 6, 20, 21, 100, 101, 9999])
    rows = bins.by_bin({"a": np.arange(9.0)}, counts)
    assert [(row["bin"], row["users"]) for row in rows] == [
        ("cold", 1), ("1–5", 2), ("6–20", 2), ("21–100", 2), ("over 100", 2),
    ]  # fmt: skip
    assert bins.by_bin({"a": np.zeros(1)}, np.array([3]))[0]["place"] == 1


def test_while_one_cell_has_no_test_nothing_of_test_is_shown(folder: Path, tmp_path: Path) -> None:
    def closed(cell: dict[str, Any]) -> dict[str, Any]:
        return cell | (
            {"test": None} if (cell["tower"], cell["seed"], cell["data"]) == ("both", 3, "games") else {}
        )

    found = analyse(grid(), edited(folder, tmp_path, closed))
    assert found.part == "valid"
    assert any("34 of 36 cells" in note for note in found.notes)
    assert not found.bins, "target_count is of the test targets"
    row = row_of(found.rows, "id")
    assert row["NDCG@10"] == row["valid NDCG@10"]
    assert {one["part"] for one in found.comparisons} == {"valid"}
    assert {row["part"] for row in found.measured} == {"valid", None}
    assert "test NDCG@10" not in printed.markdown(found, [])


def test_counts_that_contradict_the_group_of_cold_items_make_no_bins(folder: Path, tmp_path: Path) -> None:
    def other(cell: dict[str, Any]) -> dict[str, Any]:
        cell["test"]["groups"]["items:cold"]["users"] += 1
        return cell

    found = analyse(grid(data=["baby"], backbones=["sasrec"]), edited(folder, tmp_path, other))
    assert not found.bins
    assert any("no figure by popularity" in note for note in found.notes)
    assert [drawing.name for drawing in figures.drawings(found)] == ["gains", "cost"]


def test_what_is_missing_is_marked_and_what_is_there_is_compared(folder: Path, tmp_path: Path) -> None:
    def fewer(cell: dict[str, Any]) -> dict[str, Any] | None:
        where = (cell["data"], cell["backbone"], cell["tower"])
        lost = where == ("baby", "sasrec", "text") or (*where, cell["seed"]) == ("baby", "sasrec", "both", 2)
        return None if lost else cell

    cells = edited(folder, tmp_path, fewer)
    found = analyse(grid(), cells)
    text, both = row_of(found.rows, "text"), row_of(found.rows, "both")
    assert text["missing"] == [1, 2, 3]
    assert text["NDCG@10"] is None
    assert printed.printed(text)["NDCG@10"] == "–"
    assert both["missing"] == [2]
    assert printed.printed(both)["seeds"] == "2/3"
    assert printed.printed(both)["seeds_apart"] == "yes (of 2)"
    assert both["p"] is not None
    assert any(
        "36 cells are planned. Missing: baby · sasrec · text seed 1 2 3" in note for note in found.notes
    )
    files = report.write(grid(data=["baby"], backbones=["sasrec"]), cells, tmp_path / "out")
    assert all(path.exists() for path in files)
    assert "| text | 0/3 | – |" in (tmp_path / "out" / "REPORT.md").read_text()


def test_one_seed_is_never_apart_from_another(folder: Path, tmp_path: Path) -> None:
    def first(cell: dict[str, Any]) -> dict[str, Any] | None:
        return None if cell["tower"] == "both" and cell["seed"] != 1 else cell

    found = analyse(grid(), edited(folder, tmp_path, first))
    both = row_of(found.rows, "both")
    assert (both["seeds_apart"], both["seeds_compared"]) == (None, 1)
    assert both["p_holm"] < 0.05
    (wins,) = [row for row in found.wins if row["tower"] == "both"]
    assert (wins["significantly_above"], wins["seeds_apart_above"]) == (4, 0)
    assert "10 % of cases with 3 seeds each" in dict(printed.meanings(found))["seeds apart"]
    assert {one["seeds"] for one in found.comparisons if one["tower"] == "both"} == {1}


def test_seconds_by_different_clocks_are_told_of(folder: Path, tmp_path: Path, found: Findings) -> None:
    def timed(cell: dict[str, Any]) -> dict[str, Any]:
        clock = {} if cell["tower"] == "id" else {"clock": "processor"}
        return cell | {"cost": cell["cost"] | clock}

    (note,) = [one for one in analyse(grid(), edited(folder, tmp_path, timed)).notes if "clock" in one]
    assert note.startswith("Seconds of cells are 24 of the processor, 12 by a clock that is not named: ")
    assert not [one for one in found.notes if "clock" in one]


def test_cells_that_the_study_never_planned_are_not_missing(folder: Path, tmp_path: Path) -> None:
    class Skipping(report.Grid):
        def cells(self) -> list[Any]:
            return [c for c in map(Planned, arms.planned(grid())) if c.tower != "text" or c.data != "baby"]

    class Planned:
        def __init__(self, names: tuple[str, str, str, int]) -> None:
            self.data, self.backbone, self.tower, self.seed = names

    def fewer(cell: dict[str, Any]) -> dict[str, Any] | None:
        return None if (cell["data"], cell["tower"]) == ("baby", "text") else cell

    found = analyse(Skipping(**vars(grid())), edited(folder, tmp_path, fewer))
    assert not [row for row in found.rows if row["tower"] == "text" and row["data"] == "baby"]
    assert not any("not whole" in note for note in found.notes)


def test_cells_of_another_causal_or_protocol_stand_in_a_table_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    def other(cell: dict[str, Any]) -> dict[str, Any]:
        if (cell["data"], cell["backbone"], cell["tower"]) == ("baby", "sasrec", "both"):
            cell["config"] = {"causal": False}
        if (cell["data"], cell["backbone"], cell["tower"]) == ("games", "sasrec", "text"):
            cell["protocol"] = "SAMPLED 1:100"
        return cell

    found = analyse(grid(), edited(folder, tmp_path, other))
    titles = [table.title for table in found.tables]
    assert "baby · sasrec · not causal" in titles
    assert "games · sasrec · protocol 2" in titles
    assert any("cells differ in causal" in note for note in found.notes)
    alone = row_of(found.rows, "both", "baby · sasrec · not causal")
    assert alone["p"] is None, "its reference is in the other table"
    assert alone["NDCG@10"] is not None
    assert not [
        row for row in found.rows if row["table"] == "baby · sasrec · causal" and row["tower"] == "both"
    ]
    assert not any("not whole" in note for note in found.notes)
    assert {row["family"] for row in found.comparisons} == {6}


def test_ranks_that_contradict_their_figures_or_are_of_other_users_are_not_compared(
    folder: Path, tmp_path: Path
) -> None:
    def wrong(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["tower"] == "both" and cell["data"] == "baby":
            cell["ranks"] = str(folder / "baby--sasrec--id--1.ranks.parquet")
        if cell["tower"] == "text" and cell["data"] == "baby":
            cell["ranks"] = str(folder / f"games--sasrec--text--{cell['seed']}.ranks.parquet")
        if cell["tower"] == "both" and cell["data"] == "games":
            cell["ranks"] = None
        return cell

    found = analyse(grid(), edited(folder, tmp_path, wrong))
    said = "\n".join(found.notes)
    assert "baby · sasrec: both is not compared: ranks and metrics of a cell disagree" in said
    assert "baby · sasrec: text is not compared: its ranks are of other users" in said
    assert "games · sasrec: both is not compared: a file of ranks is missing" in said
    assert {(one["data"], one["tower"]) for one in found.comparisons} == {("games", "text")}


def test_a_folder_alone_is_enough_and_strangers_are_counted_out(folder: Path) -> None:
    cells = report.read_cells(folder)
    assert len(cells) == 38
    assert report.grid_of(cells, "id").towers == ["id", "both", "text"]
    assert report.grid_of(cells, "id").seeds == [1, 2, 3]
    with pytest.raises(NotFound, match="no cell has the tower"):
        report.grid_of(cells, "idd")
    found = analyse(grid(seeds=(1, 2)), cells)
    assert any(note.startswith("12 cells that are not of this study's grid") for note in found.notes)


def test_records_that_do_not_name_their_ranks_have_them_in_the_folder_of_the_study(
    folder: Path, tmp_path: Path
) -> None:
    class InFolder(report.Grid):
        @property
        def folder(self) -> Path:
            return folder

    def bare(cell: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in cell.items() if name != "ranks"}

    small = grid(data=["baby"], backbones=["sasrec"])
    cells = edited(folder, tmp_path, bare)
    assert row_of(report.rows(InFolder(**vars(small)), cells), "both")["p"] is not None
    assert row_of(report.rows(small, cells), "both")["p"] is None


def test_nothing_to_report_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no cell"):
        report.read_cells(tmp_path)
    floors = [cell for cell in report.read_cells(folder) if cell["tower"] is None]
    with pytest.raises(NotFound, match="no cell of study small is trained"):
        report.write(grid(), floors, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFound, match="no cell of study other is trained"):
        report.rows(grid(name="other"), report.read_cells(folder))
    with pytest.raises(BadInput, match="did you mean 'text'"):
        analyse(grid(reference="texd"), report.read_cells(folder))


def test_the_csv_holds_every_figure_of_every_cell(out: Path, folder: Path) -> None:
    with (out / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = {
        "data": "games",
        "backbone": "gru4rec",
        "tower": "text",
        "seed": "2",
        "part": "test",
        "metric": "NDCG@10",
    }
    (row,) = [
        row for row in rows if row["group"] == "items:cold" and all(row[k] == v for k, v in key.items())
    ]
    block = json.loads((folder / "games--gru4rec--text--2.json").read_text())
    assert float(row["value"]) == block["test"]["groups"]["items:cold"]["NDCG@10"]
    assert int(row["users"]) == block["test"]["groups"]["items:cold"]["users"]
    with (out / "comparisons.csv").open() as file:
        compared = list(csv.DictReader(file))
    assert len(compared) == 2 * 4 * 3
    assert all(0 < float(row["p"]) <= float(row["p_holm"]) <= 1 for row in compared)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_whole_and_asks_for_nothing_outside(out: Path) -> None:
    page = (out / "report.html").read_text()
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    assert all(link.startswith(("data:image/", "#")) for link in reader.links)
    assert "http" not in page
    assert page.count("<picture>") == 3
    assert re.search(r'<td class="best start">\.\d{4} ± \.\d{4}</td>', page)


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    write_grid(
        cells, data=("baby",), backbones=("sasrec",), lifts={"id": 0.0, "x": 0.9}, seeds=(1,), users=60
    )
    evil = []
    for cell in report.read_cells(cells):
        changes = {"tower": EVIL} if cell["tower"] == "x" else {}
        evil.append(cell | changes | {"data": EVIL, "protocol": EVIL})
    report.write(
        grid(data=[EVIL], backbones=["sasrec"], towers=["id", EVIL], seeds=[1]), evil, tmp_path / "out"
    )
    for name in ("report.html", "REPORT.md"):
        assert "<script" not in (tmp_path / "out" / name).read_text()
    lines = (tmp_path / "out" / "REPORT.md").read_text().splitlines()
    (begin,) = [k for k, line in enumerate(lines) if line.startswith("| tower | seeds")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines[begin : begin + 5]}
    assert len(bars) == 1, "a bar in a name makes no column"


def test_one_seed_has_no_deviation_and_says_none(tmp_path: Path) -> None:
    write_grid(tmp_path, data=("baby",), backbones=("sasrec",), seeds=(1,), users=60)
    found = analyse(grid(data=["baby"], backbones=["sasrec"], seeds=[1]), report.read_cells(tmp_path))
    assert "±" not in printed.printed(row_of(found.rows, "both"))["NDCG@10"]


def test_markdown_has_a_table_for_each_and_pictures_that_are_there(out: Path) -> None:
    text = (out / "REPORT.md").read_text()
    for table in ("baby · sasrec", "games · gru4rec"):
        assert f"\n## {table}\n" in text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(pictures) == 3
    assert all((out / path).read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert "| **." in text


def test_the_same_records_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    small, cells = grid(data=["baby"], backbones=["sasrec"], towers=["id", "both"]), report.read_cells(folder)
    written = report.write(small, cells, tmp_path / "once")
    report.write(small, cells[::-1], tmp_path / "again")
    assert len(written) == 4 + 2 * 3
    for path in written:
        assert (tmp_path / "again" / path.relative_to(tmp_path / "once")).read_bytes() == path.read_bytes(), (
            path
        )


def test_numbers_are_written_as_the_house_does() -> None:
    assert printed.number(0.17771) == ".1777"
    assert printed.number(None) == printed.number(float("nan")) == "–"
    assert printed.number(1.0) == "1.0000"
    assert printed.share(-0.0312) == "−3.1 %"
    assert printed.probability(0.0001) == "< .001 *"
    assert printed.probability(0.05) == ".050"
    assert printed.probability(1.0) == "1.000"
    assert printed.seconds(1234.5) == "1,234"


def test_labels_keep_their_order_and_the_gap_within_the_panel() -> None:
    values = [0.5, 0.51, 0.1, 0.505, 0.0]
    placed = np.array(panels.spaced(values, 0.1, 0.0, 0.6))
    np.testing.assert_allclose(placed[np.argsort(values)], [0.0, 0.1, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(panels.spaced([0.2, 0.9], 0.1, 0.0, 1.0), [0.2, 0.9])
    crowded = np.sort(panels.spaced([0.5] * 7, 0.5, 0.0, 1.0))
    assert (crowded[0], crowded[-1]) == pytest.approx((0.0, 1.0))
    assert panels.spaced([], 0.1, 0.0, 1.0) == []


def test_towers_are_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    write_grid(folder, data=DATA[:1], backbones=BACKBONES[:1])
    tower = next(name for name in TOWERS if name != "id")
    (gone,) = folder.glob(f"*--{tower}--{SEEDS[-1]}.json")
    gone.unlink()
    found = analyse(grid(data=DATA[:1], backbones=BACKBONES[:1]), report.read_cells(folder))
    of = {one["tower"]: one for one in found.comparisons if one["metric"] == "NDCG@10"}
    assert {name: one["seeds"] for name, one in of.items()} == {
        name: len(SEEDS) - (name == tower) for name in TOWERS if name != "id"
    }
    shared = [json.loads(path.read_text()) for path in sorted(folder.glob("*--id--*.json"))][: len(SEEDS) - 1]
    expected = np.mean([cell["test"]["metrics"]["NDCG@10"] for cell in shared])
    assert of[tower]["reference"] == pytest.approx(expected)
