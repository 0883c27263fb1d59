"""Spliced streams: what changes, and when, is as their kind says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splices import AFTER, RAMP, THICK, THIN, VISIT, Kind, Source, Splice, splice

from penchant_pipelines.errors import InvalidInput

law = settings(max_examples=60, deadline=None)
EACH = 200


def source(authors: bool, groups: int = 8, each: int = EACH) -> Source:
    rows = np.arange(groups * each)
    gaps = rows % 7 * 3_600_000_000 if authors else None
    return Source("texts", {f"g{group}": rows[group * each : (group + 1) * each] for group in range(groups)}, gaps)


def draw(kind: Kind, authors: bool, thin: bool, seed: int) -> Splice:
    return splice(source(authors), kind, thin, np.random.default_rng(seed))


anything = given(st.sampled_from(Kind), st.booleans(), st.booleans(), st.integers(0, 9999))


@law
@anything
def test_streams_are_in_order_and_repeat_no_text(kind: Kind, authors: bool, thin: bool, seed: int) -> None:
    found = draw(kind, authors, thin, seed)
    assert len(found.rows) == len(found.times) == len(found.groups)
    assert (np.diff(found.times) > 0).all()
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert [f"g{row // EACH}" for row in found.rows] == list(found.groups)


@law
@anything
def test_the_same_dice_give_the_same_stream(kind: Kind, authors: bool, thin: bool, seed: int) -> None:
    first, second = draw(kind, authors, thin, seed), draw(kind, authors, thin, seed)
    assert first.groups == second.groups
    assert (first.rows == second.rows).all()
    assert (first.times == second.times).all()


@law
@given(st.booleans(), st.booleans(), st.integers(0, 9999))
def test_an_abrupt_change_leaves_nothing_as_it_was(authors: bool, thin: bool, seed: int) -> None:
    found = draw(Kind.ABRUPT, authors, thin, seed)
    assert found.change is not None
    assert not set(found.groups[: found.change]) & set(found.groups[found.change :])
    least, most = THIN if thin else THICK
    assert least <= found.change <= most


@law
@given(st.booleans(), st.integers(0, 9999))
def test_a_gradual_change_takes_its_time(authors: bool, seed: int) -> None:
    found = draw(Kind.GRADUAL, authors, False, seed)
    assert found.change is not None
    before = set(found.groups[: found.change])
    assert not before & set(found.groups[found.change + RAMP :])
    assert len(found.groups) == found.change + AFTER


@law
@given(st.booleans(), st.integers(0, 9999))
def test_a_recurring_user_comes_back(authors: bool, seed: int) -> None:
    found = draw(Kind.RECURRING, authors, False, seed)
    assert found.change is not None
    assert found.back == found.change + VISIT
    before = set(found.groups[: found.change])
    assert not before & set(found.groups[found.change : found.back])
    assert set(found.groups[found.back :]) <= before


@law
@given(st.booleans(), st.integers(0, 9999))
def test_a_control_has_no_change(authors: bool, seed: int) -> None:
    found = draw(Kind.CONTROL, authors, False, seed)
    assert (found.change, found.back) == (None, None)
    assert len(set(found.groups)) <= 3


@law
@given(st.integers(0, 9999))
def test_an_authors_posts_stay_in_order(seed: int) -> None:
    found = draw(Kind.RECURRING, True, False, seed)
    for name in set(found.groups):
        own = [row for row, group in zip(found.rows, found.groups, strict=True) if group == name]
        assert own == list(range(own[0], own[0] + len(own)))


@pytest.mark.parametrize("authors", [True, False])
def test_too_little_to_draw_from_is_refused(authors: bool) -> None:
    with pytest.raises(InvalidInput, match="two groups of 70 texts"):
        splice(source(authors, groups=5, each=69), Kind.ABRUPT, False, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="two groups"):
        splice(source(authors, groups=1), Kind.ABRUPT, False, np.random.default_rng(0))
