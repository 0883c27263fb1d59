import pytest

from penchant.pages import PAGE_BYTES, PageTokens, coerce_page_size
from penchant.v1.catalog_service_pb2 import Item, ListItemsRequest
from penchant_pipelines.errors import InvalidInput

TOKENS = PageTokens(b"k" * 32)


@pytest.mark.parametrize("cursor", ["", "s-1", "用户 42", "a" * 300, '["x", 1]'])
def test_a_token_gives_its_cursor_back(cursor: str) -> None:
    token = TOKENS.encode_token("ListSignals", "u1", cursor)
    assert token.isascii()
    assert token.replace("-", "").replace("_", "").isalnum()
    assert TOKENS.decode_token(token, "ListSignals", "u1") == cursor


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.decode_token("", "ListSignals", "u1") == ""


def pages(items: list[Item], size: int) -> list[list[str]]:
    """Ids on each page of a listing, all that follow from the first."""
    token, found = "", []
    while True:
        listing = TOKENS.listing(ListItemsRequest(page_size=size, page_token=token, filter="f"), 1000, "f")
        later = [(item.id, item) for item in items if item.id > listing.cursor]
        page, token = listing.page(later[: listing.size + 1])
        found.append([item.id for item in page])
        if not token:
            return found
        assert TOKENS.decode_token(token, "ListItems", "f") == page[-1].id


def test_pages_of_a_listing_hold_each_entry_once() -> None:
    assert pages([Item(id=name) for name in "abcdefg"], 3) == [list("abc"), list("def"), ["g"]]
    # What fills its last page needs no empty one behind it.
    assert pages([Item(id=name) for name in "abc"], 3) == [list("abc")]


def test_a_page_ends_where_it_would_grow_too_large_for_a_message() -> None:
    half = "x" * (PAGE_BYTES // 2)
    texts = {"a": "", "b": half, "c": half, "d": "", "e": 3 * half, "f": half, "g": ""}
    items = [Item(id=name, text=text) for name, text in texts.items()]
    assert pages(items, 1000) == [["a", "b"], ["c", "d"], ["e"], ["f", "g"]]


def test_the_longest_id_as_cursor_makes_a_token_that_the_contract_lets_in() -> None:
    assert len(TOKENS.encode_token("ListItems", "filter", "字" * 85)) < 1024


@pytest.mark.parametrize(("method", "parameters"), [("ListItems", "u1"), ("ListSignals", "u2")])
def test_a_token_of_another_listing_is_refused(method: str, parameters: str) -> None:
    token = TOKENS.encode_token("ListSignals", "u1", "s-1")
    with pytest.raises(InvalidInput) as refusal:
        TOKENS.decode_token(token, method, parameters)
    assert [v.field for v in refusal.value.violations] == ["page_token"]


def test_where_one_parameter_ends_matters() -> None:
    token = TOKENS.encode_token("ab", "c", "s-1")
    with pytest.raises(InvalidInput):
        TOKENS.decode_token(token, "a", "bc")


def test_a_token_signed_with_another_key_is_refused() -> None:
    token = PageTokens(b"other").encode_token("ListSignals", "u1", "s-1")
    with pytest.raises(InvalidInput):
        TOKENS.decode_token(token, "ListSignals", "u1")


def test_any_changed_character_is_noticed() -> None:
    token = TOKENS.encode_token("ListSignals", "u1", "s-10")
    for position, character in enumerate(token):
        for other in "AB":
            if other != character:
                with pytest.raises(InvalidInput):
                    TOKENS.decode_token(token[:position] + other + token[position + 1 :], "ListSignals", "u1")


@pytest.mark.parametrize("garbage", ["x", "!!!!", "é", "令牌", "AAAA", "=" * 8, " " * 40, "A" * 1024, "_-" * 40])
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(InvalidInput):
        TOKENS.decode_token(garbage, "ListSignals", "u1")


@pytest.mark.parametrize(("requested", "size"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_page_sizes_are_coerced(requested: int, size: int) -> None:
    assert coerce_page_size(requested, default=20, maximum=100) == size
