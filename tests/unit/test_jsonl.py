import gzip
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from penchant import Item, Post, Signal, jsonl
from penchant.exceptions import InvalidInputError


def read(path: Path) -> list[tuple[int, Signal | str]]:
    with jsonl.open_source(path) as source:
        return [
            (line.number, line.content if isinstance(line.content, Signal) else line.content.message)
            for line in jsonl.read_messages(source, Signal)
        ]


def test_camel_case_and_snake_case_are_the_same() -> None:
    camel = jsonl.parse_message('{"userId": "mei", "post": {"itemId": "i"}}', Signal)
    snake = jsonl.parse_message('{"user_id": "mei", "post": {"item_id": "i"}}', Signal)
    assert camel == snake == Signal(user_id="mei", post=Post(item_id="i"))


@pytest.mark.parametrize(
    ("line", "field", "part"),
    [
        ('{"foo": 1}', "foo", "not a field"),
        ('{"post": {"foo": 1}}', "post.foo", "not a field"),
        ('{"post": {"text": 3}}', "post.text", "string"),
        ('{"post": {"text": "\\ud800"}}', "post.text", "string"),
        ('{"post": {"rating": "high"}}', "post.rating", "number"),
        ('{"post": {"rating": NaN}}', "post.rating", "number"),
        ('{"post": "hi"}', "post", "object"),
        ('{"time": "yesterday"}', "time", "2026-01-31T12:00:00Z"),
        ('{"time": 5}', "time", "2026-01-31T12:00:00Z"),
        ('{"behavior": {"action": "LIKE"}}', "behavior.action", "ACTION_LIKE"),
        ('{"context": {"a": 1}}', "context", "strings"),
        ('{"post": {}, "behavior": {}}', "evidence", "only one"),
        ('{"user_id": "a", "user_id": "b"}', "line", "duplicate key"),
        ("{", "line", "not JSON"),
        ("[" * 100_000, "line", "not JSON"),
        ("[1]", "line", "object"),
        ("null", "line", "object"),
    ],
)
def test_a_bad_line_names_its_field(line: str, field: str, part: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        jsonl.parse_message(line, Signal)
    assert caught.value.violations[0].field == field
    assert part in caught.value.violations[0].description


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_line_raises_anything_but_invalid_input(line: bytes) -> None:
    try:
        jsonl.parse_message(line, Signal)
    except InvalidInputError as error:
        assert error.violations  # noqa: PT017 (either outcome is fine; this one has to name a field)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["id", "user_id", "userId", "time", "post", "behavior", "context"])
inner_names = st.sampled_from(["text", "rating", "item_id", "action", "value", "language"])


@given(st.dictionaries(names, json_values | st.dictionaries(inner_names, json_values)))
def test_no_object_raises_anything_but_invalid_input_with_a_field(content: dict[str, Any]) -> None:
    text = json.dumps(content)
    try:
        jsonl.parse_message(text, Signal)
    except InvalidInputError as error:
        assert error.violations[0].field.partition(".")[0] in {*content, "user_id", "evidence", "line"}  # noqa: PT017 (as above)


def test_bad_lines_do_not_stop_the_others(tmp_path: Path) -> None:
    path = tmp_path / "signals.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "1"}\r\n\nnot json\n\xff\n{"id": "2"}')
    lines = read(path)
    assert [number for number, _ in lines] == [1, 3, 4, 5]
    assert lines[0][1] == Signal(id="1")
    assert lines[3][1] == Signal(id="2")
    assert "not JSON" in str(lines[1][1])
    assert "UTF-8" in str(lines[2][1])


def test_gzip_is_read_and_a_broken_end_is_a_bad_line(tmp_path: Path) -> None:
    whole = tmp_path / "signals.jsonl.gz"
    whole.write_bytes(gzip.compress(b'{"id": "1"}\n' * 3))
    assert read(whole) == [(n, Signal(id="1")) for n in (1, 2, 3)]
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(whole.read_bytes()[:-9])
    assert "can't be read on" in str(read(broken)[-1][1])
    no_gzip = tmp_path / "no.jsonl.gz"
    no_gzip.write_text('{"id": "1"}')
    assert read(no_gzip)[0][0] == 1
    assert "can't be read on" in str(read(no_gzip)[0][1])


def test_parquet_rows_have_the_shape_of_lines(tmp_path: Path) -> None:
    schema = pa.schema(
        {
            "id": pa.string(),
            "time": pa.timestamp("ns"),
            "post": pa.struct({"text": pa.string(), "rating": pa.float64()}),
            "context": pa.map_(pa.string(), pa.string()),
        }
    )
    rows = [
        {"id": "1", "time": datetime(2026, 1, 1), "post": {"text": "x"}, "context": [("k", "v")]},
        {"id": "2", "time": None, "post": None, "context": None},
    ]
    path = tmp_path / "signals.parquet"
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    expected = jsonl.parse_message(
        '{"id": "1", "time": "2026-01-01T00:00:00Z", "post": {"text": "x"}, "context": {"k": "v"}}', Signal
    )
    assert read(path) == [(1, expected), (2, Signal(id="2"))]


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_parquet_that_is_damaged_halfway_ends_in_a_bad_line(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "signals.parquet"
    ids = [f"{number:08}" for number in range(5_000)]
    parquet.write_table(pa.table({"id": ids}), path, row_group_size=500, compression=compression, use_dictionary=False)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * 1_000 + whole[middle + 1_000 :])
    *sound, (number, problem) = read(path)
    assert [line for line, _ in sound] == list(range(1, number))
    assert 1_000 < number < 4_000
    assert "can't be read on" in str(problem)


def test_a_file_that_only_says_it_is_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signals.parquet"
    path.write_text("no")
    with pytest.raises(InvalidInputError, match="not Parquet"):
        read(path)


def test_written_lines_read_back_the_same() -> None:
    item = Item(id="i", title="红烧肉\u2028", categories=["a"], hidden=True)
    line = jsonl.to_json(item)
    assert "\n" not in line
    assert "红烧肉" in line
    assert jsonl.parse_message(line, Item) == item
    assert '"text": ""' in jsonl.to_json(item, defaults=True)
    assert '"text"' not in line


def test_objects_of_any_fields_are_read_for_embedding() -> None:
    file = io.BytesIO(b'{"text": "a", "x": 1}\n[]\n{')
    lines = list(jsonl.read_objects(jsonl.Source(file, file, None, parquet=False)))
    assert lines[0].content == {"text": "a", "x": 1}
    assert [type(line.content) for line in lines[1:]] == [InvalidInputError, InvalidInputError]


def test_a_line_longer_than_any_message_ends_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 20)
    file = io.BytesIO(b'{"id": "a"}\n{"id": "' + b"b" * 50 + b'"}\n{"id": "c"}\n')
    first, second = jsonl.read_messages(jsonl.Source(file, file, None, parquet=False), Item)
    assert first.content == Item(id="a")
    assert (second.number, "a line of more than" in str(second.content)) == (2, True)
    assert file.tell() == 32
