"""Files that commands read without a server: every line has the id that the server's commands would give it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penchant.cli.files import read_assignments, read_files, whole_file
from penchant.settings import Settings

POST = '{"user_id": "ada", "time": "2026-03-01T10:00:00Z", "post": {"text": "Sourdough again"}}\n'


def read(folder: Path, items: str, signals: str) -> tuple[list[str], list[str], list[str]]:
    """Ids of items and signals, and why lines were left out."""
    (folder / "items.jsonl").write_text(items, encoding="utf-8")
    (folder / "signals.jsonl").write_text(signals, encoding="utf-8")
    refusals: list[str] = []
    found = read_files(
        folder / "items.jsonl",
        folder / "signals.jsonl",
        Settings(),
        lambda file, line, why: refusals.append(f"{file.name} {line}: {why}"),
    )
    first, second = ([each.id for each in part] for part in found)
    return first, second, refusals


def test_lines_without_an_id_stay_apart_and_are_the_same_each_time(tmp_path: Path) -> None:
    items = '{"title": "Bread"}\n{"title": "Beer"}\n'
    signals = POST + POST + POST.replace("ada", "ben")
    item_ids, signal_ids, refusals = read(tmp_path, items, signals)
    assert refusals == []
    assert len(set(item_ids)) == 2
    assert len(set(signal_ids)) == 3
    assert all(item_ids)
    assert all(signal_ids)
    assert (item_ids, signal_ids) == read(tmp_path, items, signals)[:2]


def test_ids_that_are_given_stay(tmp_path: Path) -> None:
    item_ids, signal_ids, _ = read(tmp_path, '{"id": "i", "title": "Bread"}\n', POST.replace("{", '{"id": "s", ', 1))
    assert (item_ids, signal_ids) == (["i"], ["s"])


def test_what_the_server_would_refuse_is_told_with_its_line(tmp_path: Path) -> None:
    item_ids, signal_ids, refusals = read(tmp_path, '{"title": "Bread"}\nno json\n', '{"post": {"text": "x"}}\n' + POST)
    assert (len(item_ids), len(signal_ids)) == (1, 1)
    assert [refusal.partition(":")[0] for refusal in refusals] == ["items.jsonl 2", "signals.jsonl 1"]


def test_a_signal_under_the_id_of_another_is_told_and_one_that_is_sent_again_is_not(tmp_path: Path) -> None:
    first = POST.replace("{", '{"id": "s", ', 1)
    _, signal_ids, refusals = read(tmp_path, "", first + first + first.replace("again", "at last"))
    assert signal_ids == ["s", "s"]
    assert refusals == ["signals.jsonl 3: id: 's' was given to another signal before; ids are of one signal each"]


def test_stars_in_place_of_a_rating_are_told_as_the_server_would(tmp_path: Path) -> None:
    behavior = '"behavior": {"item_id": "i", "action": "ACTION_LIKE", "value": 5}'
    liked = POST.replace('"post": {"text": "Sourdough again"}', behavior)
    _, signal_ids, refusals = read(tmp_path, "", POST + liked)
    assert len(signal_ids) == 1
    (refusal,) = refusals
    assert refusal.startswith("signals.jsonl 2: behavior.value: must lie between -1 and 1")


def test_a_setting_keeps_the_space_that_its_value_ends_in() -> None:
    assert read_assignments(["encoder.prompt=query: ", "a = 3"]) == {"encoder.prompt": "query: ", "a": "3"}


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    target, link = tmp_path / "users.jsonl", tmp_path / "link"
    link.symlink_to(target)
    with whole_file(link) as place:
        place.write_text("whole")
        assert not target.exists()

    def break_off() -> None:
        with whole_file(link) as place:
            place.write_text("ha")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        break_off()
    assert (link.is_symlink(), target.read_text()) == (True, "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "users.jsonl"]


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Whoever may write to devices would put a file in their place.
    with whole_file(pipe) as place:
        assert place == pipe
    assert pipe.is_fifo()
