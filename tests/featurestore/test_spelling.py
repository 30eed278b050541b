from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore import spelling

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)


@given(st.sets(NAMES), NAMES)
def test_an_id_is_found_where_it_stands_and_nowhere_else(names: set[str], wanted: str) -> None:
    ids = np.array(sorted(names), dtype=np.str_)
    for row, name in enumerate(ids.tolist()):
        assert spelling.place(ids, name) == row
    assert spelling.place(ids, wanted) == (sorted(names).index(wanted) if wanted in names else -1)


def test_another_spelling_and_a_neighbour_are_told() -> None:
    ids = np.array(["B001", "B002", "film7"])
    assert spelling.hint(ids, " b002 ") == "did you mean 'B002'?"
    assert spelling.hint(ids, "film70") == "did you mean 'film7'?"
    assert "as spelled there" in spelling.hint(ids, "zzz")
    assert "as spelled there" in spelling.hint(np.array([], np.str_), "zzz")
