import pytest

from penchant.pages import PageTokens, coerce_page_size
from penchant.v1.catalog_service_pb2 import ListItemsRequest
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


def test_pages_of_a_listing_hold_each_entry_once() -> None:
    entries, token, pages = range(1, 8), "", []
    for _ in range(4):
        listing = TOKENS.listing(ListItemsRequest(page_size=3, page_token=token, filter="f"), 100, "f")
        found = [entry for entry in entries if entry > int(listing.cursor or 0)][: listing.size + 1]
        page, token = listing.page(found, str)
        pages.append(list(page))
        if not token:
            break
        assert TOKENS.decode_token(token, "ListItems", "f") == str(page[-1])
    assert pages == [[1, 2, 3], [4, 5, 6], [7]]
    # What fills its last page needs no empty one behind it.
    assert listing.page([7, 8, 9], str) == ([7, 8, 9], "")


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
