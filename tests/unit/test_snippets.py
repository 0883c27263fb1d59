from __future__ import annotations

import pytest

from penchant_pipelines.model import Action
from penchant_pipelines.profiles import SNIPPET_LENGTH, _snippet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Finally  dialled in\nthe grinder", "Finally dialled in the grinder"),
        ("x" * SNIPPET_LENGTH, "x" * SNIPPET_LENGTH),
        ("x" * 300, "x" * (SNIPPET_LENGTH - 1) + "…"),
        ("word " * 60, "word " * 31 + "word…"),
        ("今天" * 100, "今天" * 79 + "今…"),
        ("a " + "今天" * 100, "a " + "今天" * 78 + "今…"),
    ],
)
def test_a_long_text_is_cut_between_words_where_it_has_spaces(text: str, shown: str) -> None:
    assert _snippet(text, None, "") == shown
    assert len(shown) <= SNIPPET_LENGTH


def test_what_was_done_is_told_by_its_item() -> None:
    assert _snippet("", int(Action.NOT_INTERESTED), "Rust in a week") == "not interested: Rust in a week"
