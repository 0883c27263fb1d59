"""Chinese words as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from penchant_pipelines.encoder.sentence import embedded_model
from penchant_pipelines.encoder.tokenizer import add_words
from penchant_pipelines.encoder.words import WordVocabulary, load_rows, save_rows
from penchant_pipelines.errors import WrongState

WORDS = {"的": 900, "我": 800, "北京": 300, "天安门": 40, "北": 20, "京": 10, "天": 60, "安": 30, "门": 30, "安门": 1}


@pytest.fixture(scope="module")
def vocabulary() -> WordVocabulary:
    return WordVocabulary(WORDS)


def test_segment_takes_the_likeliest_words(vocabulary: WordVocabulary) -> None:
    assert vocabulary.segment("我的北京天安门").split() == ["我", "的", "北京", "天安门"]


def test_segment_reads_traditional_characters(vocabulary: WordVocabulary) -> None:
    assert vocabulary.segment("天安門").split() == ["天安门"]


def test_segment_leaves_other_scripts_alone(vocabulary: WordVocabulary) -> None:
    assert vocabulary.segment("I ♥ Beijing, 100%") == "I ♥ Beijing, 100%"


@given(st.text(alphabet="的我北京天安门龘ab 1，", max_size=40))
def test_segment_twice_is_segment_once(text: str) -> None:
    vocabulary = WordVocabulary(WORDS)
    once = vocabulary.segment(text)
    assert vocabulary.segment(once).split() == once.split()
    assert once.replace(" ", "") == text.replace(" ", "")


def test_words_survive_a_file(vocabulary: WordVocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path / "words.txt")
    assert WordVocabulary.load(tmp_path / "words.txt").words == vocabulary.words


@pytest.mark.parametrize("content", ["", "北京", "北京 x\n", "Beijing 3\n", "北京 3\n北京 4\n"], ids=repr)
def test_damaged_words_are_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(WrongState):
        WordVocabulary.load(file)


def test_rows_keep_four_bits(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 384)).astype(np.float32)
    save_rows(tmp_path / "rows.safetensors", rows)
    assert (tmp_path / "rows.safetensors").stat().st_size < 50 * 384 / 2 + 500
    loaded = load_rows(tmp_path / "rows.safetensors")
    cosines = (loaded * rows).sum(axis=1) / np.linalg.norm(loaded, axis=1) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > 0.985
    save_rows(tmp_path / "again.safetensors", loaded)
    assert np.allclose(load_rows(tmp_path / "again.safetensors"), loaded, rtol=2e-3)


def test_a_row_of_levels_is_kept_as_it_is(tmp_path: Path) -> None:
    rows = np.array([[7, -7, 0, 3, -1, 1], [0, 0, 0, 0, 0, 0]], dtype=np.float32) / np.float32(8)
    save_rows(tmp_path / "rows.safetensors", rows)
    assert np.allclose(load_rows(tmp_path / "rows.safetensors"), rows, atol=1e-6)


def test_rows_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.safetensors"
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(WrongState):
        load_rows(file)


@pytest.mark.parametrize(
    ("rows", "scales"),
    [
        (np.zeros((3, 4), np.int8), np.ones((3, 1), np.float16)),
        (np.zeros((3, 4), np.uint8), np.ones((2, 1), np.float16)),
        (np.zeros((3, 4), np.uint8), np.full((3, 1), np.nan, np.float16)),
    ],
    ids=["8 bits", "a scale missing", "no number"],
)
def test_rows_of_another_kind_are_refused(rows: Any, scales: Any, tmp_path: Path) -> None:
    save_file({"rows": rows, "scales": scales}, tmp_path / "rows.safetensors")
    with pytest.raises(WrongState, match="must hold rows"):
        load_rows(tmp_path / "rows.safetensors")


def test_words_become_tokens_and_english_stays(vocabulary: WordVocabulary) -> None:
    model = SentenceTransformer(str(embedded_model()), device="cpu", local_files_only=True)
    before = model.encode(["hello world"])
    add_words(model, vocabulary, np.full((len(vocabulary), 384), 0.01, dtype=np.float32))
    tokens = model.tokenizer("我的北京 hello")["input_ids"]
    first = 30522
    assert tokens[1:-1] == [first + 1, first, first + 2, model.tokenizer.convert_tokens_to_ids("hello")]
    assert np.array_equal(model.encode(["hello world"]), before)


def test_words_on_top_of_words_are_refused(vocabulary: WordVocabulary) -> None:
    model = SentenceTransformer(str(embedded_model()), device="cpu", local_files_only=True)
    rows = np.zeros((len(vocabulary), 384), dtype=np.float32)
    add_words(model, vocabulary, rows)
    with pytest.raises(WrongState, match="already"):
        add_words(model, vocabulary, rows)


def test_rows_of_another_shape_are_refused(vocabulary: WordVocabulary) -> None:
    model = SentenceTransformer(str(embedded_model()), device="cpu", local_files_only=True)
    with pytest.raises(WrongState, match="expected"):
        add_words(model, vocabulary, np.zeros((3, 384), dtype=np.float32))
