from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant_pipelines.errors import WrongState
from penchant_pipelines.text import TextPipeline, TextSettings, segment
from penchant_pipelines.text.lexicon import newer_words
from penchant_pipelines.text.quiet_jieba import jieba
from penchant_pipelines.text.segment import Segmenter, load_dictionary

SENTENCE = "周末去绿云山谷露营"


def test_words() -> None:
    cut = TextPipeline(TextSettings()).segment
    assert cut("我喜欢手冲咖啡，穿T恤。It's node.js!") == [
        "我", "喜欢", "手冲", "咖啡", "，", "穿", "T恤", "。", "It's", "node.js", "!",
    ]  # fmt: skip


def test_newer_words_stay_whole_and_are_none_of_jiebas_own() -> None:
    tokenizer = load_dictionary(None)
    assert [word for word in newer_words() if list(tokenizer.cut(word)) != [word]] == []
    own, _ = jieba.Tokenizer().gen_pfdict(jieba.get_dict_file())
    assert [word for word in newer_words() if own.get(word)] == []
    assert set(newer_words().values()) == {"n", "nz"}


@pytest.mark.parametrize("text", ["前后摇晃", "网上分享", "江湖人", "地铁三号线", "赶快充电", "哈利路亚", "方面经验"])
def test_newer_words_cut_no_others_in_two(text: str) -> None:
    assert not set(Segmenter().cut(text)) & (newer_words().keys() - {text})


@settings(deadline=None)  # the dictionary is loaded at the first text
@given(st.text(max_size=100) | st.text(alphabet="咖啡喝茶T恤a1 ,.，。#-", max_size=100))
def test_words_make_up_the_text(text: str) -> None:
    assert "".join(Segmenter().cut(text)) == "".join(text.split())


def write(path: Path, content: bytes, age: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.utime(fresh, (1_700_000_000 + age, 1_700_000_000 + age))
    fresh.replace(path)


def test_the_user_dictionary_is_reloaded_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_CHECK_SECONDS", 0.0)
    words = tmp_path / "words.txt"
    assert "绿云山谷" not in Segmenter().cut(SENTENCE)
    write(words, "绿云山谷 100000 ns\n".encode(), age=0)
    segmenter = Segmenter(words)
    assert "绿云山谷" in segmenter.cut(SENTENCE)
    assert segmenter.user_words == {"绿云山谷"}
    write(words, "山谷露营 100000\n".encode(), age=1)
    assert "山谷露营" in segmenter.cut(SENTENCE)
    assert segmenter.user_words == {"山谷露营"}
    assert "山谷露营" not in Segmenter().cut(SENTENCE)


def test_a_broken_dictionary_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_CHECK_SECONDS", 0.0)
    words = tmp_path / "words.txt"
    write(words, "绿云山谷 100000 ns\n".encode(), age=0)
    segmenter = Segmenter(words)
    with structlog.testing.capture_logs() as logs:
        write(words, b"\xff\xfe\x00broken", age=1)
        assert "绿云山谷" in segmenter.cut(SENTENCE)
        assert "绿云山谷" in segmenter.cut(SENTENCE)
        words.unlink()
        assert "绿云山谷" in segmenter.cut(SENTENCE)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("user_dictionary_unreadable", "warning")] * 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00broken"])
def test_a_dictionary_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    words = tmp_path / "words.txt"
    if content is not None:
        words.write_bytes(content)
    with pytest.raises(WrongState, match=r"text\.user_dictionary .*words\.txt"):
        Segmenter(words)


def test_a_dictionary_in_traditional_characters_serves_both_scripts(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("綠雲山谷 100000\n", encoding="utf-8-sig")
    segmenter = Segmenter(words)
    assert "綠雲山谷" in segmenter.cut("週末去綠雲山谷露營")
    assert "绿云山谷" in segmenter.cut(SENTENCE)


def test_threads_may_share_a_segmenter_that_reloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_CHECK_SECONDS", 0.0)
    words = tmp_path / "words.txt"
    write(words, "绿云山谷 100000\n".encode(), age=0)
    segmenter = Segmenter(words)
    failures: list[list[str]] = []

    def cut() -> None:
        for _ in range(200):
            result = segmenter.cut(SENTENCE)
            if "绿云山谷" not in result:
                failures.append(result)

    threads = [threading.Thread(target=cut) for _ in range(4)]
    for thread in threads:
        thread.start()
    for age in range(1, 10):
        write(words, f"绿云山谷 {100_000 + age}\n".encode(), age=age)
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_dictionary_is_cached_in_the_given_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    built = load_dictionary(folder)
    assert [file.suffix for file in folder.iterdir()] == [".cache"]
    assert load_dictionary(folder).FREQ == built.FREQ == load_dictionary(None).FREQ


def test_importing_and_reading_is_quiet_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from penchant_pipelines.text import TextPipeline, TextSettings\n"
        "pipeline = TextPipeline(TextSettings())\n"
        "texts = '今天喝咖啡', 'Guten Morgen zusammen, wie geht es euch'\n"
        "print(*(pipeline.read(text).language for text in texts))\n"
    )
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=home | path,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("zh de\n", "", 0)
    assert list(tmp_path.iterdir()) == []
