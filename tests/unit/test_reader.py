from __future__ import annotations

import pytest

from penchant_pipelines.model import Item
from penchant_pipelines.reader import Reader
from penchant_pipelines.text import TextPipeline, TextSettings

READER = Reader(TextPipeline(TextSettings()))


@pytest.mark.parametrize(
    ("item", "terms"),
    [
        (Item("i", title="1984"), ("1984",)),
        (Item("i", title="[REC]"), ("[REC]",)),
        (Item("i", title="!!!"), ("!!!",)),
        (Item("i", title="Friends"), ("Friends",)),
        (Item("i", title="1917", categories=("war",)), ("1917",)),
        (Item("i", text="so good", categories=("music",)), ("music",)),
        (Item("i", text="so good"), ("“so good”",)),
        (Item("i", title="1984", text="A clerk, in love"), ("clerk",)),
    ],
)
def test_an_item_whose_words_say_nothing_is_known_by_its_title(item: Item, terms: tuple[str, ...]) -> None:
    document = READER.item(item)
    assert document.terms == terms
    assert document.text
