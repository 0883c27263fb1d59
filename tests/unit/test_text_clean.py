from __future__ import annotations

import base64
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant_pipelines.text import Document, TextError, TextPipeline, TextSettings

NOISE = random.Random(7)


@pytest.fixture(scope="module")
def pipeline() -> TextPipeline:
    return TextPipeline(TextSettings())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cafe\u0301", "Café"),
        ("cof\u200bf\u00adee\u202e\x07 \ufeffbeans\x85now", "coffee beans now"),
        ("最终幻想Ⅶ, ⓣⓔⓐ", "最终幻想VII, tea"),
        ("ＰＳ５ 𝗧𝗿𝗮𝗶𝗹 𝓇𝓊𝓃 ﬁshing ⼈⽣，＃ＴｒａｉｌＲｕｎｎｉｎｇ", "PS5 Trail run fishing 人生， Trail Running"),
        ("  a\t b \r\n\u3000c\u2028d ", "a b c d"),
        ("a < b, i <3 you & me", "a < b, i <3 you & me"),
        ("<p>Rye</p><p>and <b>spe</b>lt</p>", "Rye and spelt"),
        ("one<br/>two<script>alert('x')</script><style>p{}</style> three", "one two three"),
        ("put it in a <script> tag &amp; run", "put it in a tag & run"),
        ("tea <!-- sold\nout --> and <!-- green --> rye", "tea and rye"),
        ("tea <!-- black --><b>or</b> <!--rye> bread", "tea or <!--rye> bread"),
        ("salt &amp; pepper &#39;n&#x27; more", "salt & pepper 'n' more"),
        ("<![CDATA[<i>fresh</i> bread]]>", "fresh bread"),
        ("look https://a.example/b?c=1#d and www.e.example/f, ok", "look and ok"),
        ("看这里https://t.cn/A6x很好喝", "看这里 很好喝"),
        ("my pan: example.com/cast-iron-pan", "my pan:"),
        ("asp.net: socket.io? at blog.example.net; example.io/a a.example.io:80", "asp.net: socket.io? at ;"),
        ("![IMG_2034](https://a.example/2034.jpg) [rye](https://en.wikipedia.org/wiki/Rye_(bread)) here", "rye here"),
        ("e.g. node.js and/or v1.2, U.S./UK", "e.g. node.js and/or v1.2, U.S./UK"),
        ("thanks @anna and @b_c@social.example!", "thanks and !"),
        ("转发 //@小明: ＠小红 好茶", "转发 好茶"),
        ("write to some.one+x@mail.example.org today", "write to today"),
        ("meet @ 5pm, C# and F#", "meet @ 5pm, C# and F#"),
        ("#TrailRunning #trail_running #rock-n-roll", "Trail Running trail running rock n roll"),
        ("#iPhone15 #GitHub", "iPhone15 GitHub"),
        ("#100DaysOfCode #NBAFinals #NYC", "100 Days Of Code NBA Finals NYC"),
        ("今天#手冲咖啡#不错 #茶 ＃拿铁＃", "今天 手冲咖啡 不错 茶 拿铁"),
        ("## Heading", "Heading"),
        ("soooooo gooood!!!!!! 1000000 ......", "sooo goood!!! 1000000 ..."),
        ("哈哈哈哈哈哈", "哈哈哈"),
        ("so good 😂😂😂 😂", "so good face with tears of joy"),
        ("好喝☕️☕️", "好喝 热饮"),
        ("👩🏽‍🍳", "woman cook"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ Coke™", "England 1 Coke"),
        ("我在臺北喝咖啡，頭髮亂了，皇后在後面", "我在台北喝咖啡，头发乱了，皇后在后面"),
    ],
)  # fmt: skip
def test_what_the_encoder_reads(pipeline: TextPipeline, text: str, expected: str) -> None:
    assert pipeline.read(text).text == expected


@pytest.mark.parametrize("text", ["", " \n\u3000", "\u200b\u200d", "https://a.example/b", "@anna", "!!! …", "<p></p>"])
def test_nothing_meaningful(pipeline: TextPipeline, text: str) -> None:
    assert pipeline.read(text, "en") == Document("", "und", ())


@pytest.mark.parametrize(
    "text",
    [
        bytes(range(256)).decode("latin-1") * 4,
        "\x00\x01\x02\x03\x04\x05\x06\x07\x08PNG",
        "\ufffd" * 20 + "text",
        base64.b64encode(NOISE.randbytes(3000)).decode(),
        "data:image/png;base64," + base64.encodebytes(NOISE.randbytes(3000)).decode(),
        NOISE.randbytes(500).hex(),
    ],
)
def test_binary_data_is_refused(pipeline: TextPipeline, text: str) -> None:
    with pytest.raises(TextError, match="send decoded Unicode text"):
        pipeline.read(text)


@pytest.mark.parametrize(
    "text",
    [
        "ok\x00\x01",
        "https://a.example/?token=" + "aB3x" * 40,
        "so" + "o" * 500,
        "-" * 500 + " a recipe",
        "1234567890" * 30,
    ],
)
def test_odd_text_is_not_binary(pipeline: TextPipeline, text: str) -> None:
    pipeline.read(text)


HOSTILE = [
    "今天早上我在臺北的一家小咖啡館喝了一杯手沖咖啡，味道非常好" * 800,
    "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(21_000)),
    "the quick brown fox jumps over the lazy dog " * 1_500,
    "<a x>" + "<a " * 21_000,
    "<!--" * 16_000,
    "<!--a>" * 16_000,
    "<!---->" + "--" * 16_000 + "<!--a>" * 16_000,
    "<script>" * 8_000,
    "<p" + " a=b" * 16_000 + ">",
    "&amp;" * 13_000,
    "a." * 32_000,
    "a@" * 32_000,
    "a-" * 32_000,
    "#咖" * 20_000,
    "#" * 64_000,
    "＃#" * 16_000 + "!",
    "#a" * 32_000,
    "http://a" + "(a" * 30_000,
    "://" * 21_000,
    "😂☕🏃🏽‍♂️" * 2_500,
    " " * 64_000,
    "(" * 30_000 + ")" * 30_000,
    "ab" * 32_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_the_largest_text_is_read_in_a_blink(pipeline: TextPipeline, text: str) -> None:
    pipeline.read("咖啡 coffee")  # dictionaries are loaded at the first text
    start = time.thread_time()  # of the processor: a busy machine is no fault of the pipeline
    pipeline.read(text)
    assert time.thread_time() - start < 1.0


odd = st.text(alphabet="a1 <>&;#@＠./:-_(){}[]*!咖啡臺\u200d\ufe0f\u0301\x00\n😂☕🏽é", max_size=80)


@settings(deadline=None)  # dictionaries are loaded at the first text
@given(st.text(max_size=200) | odd)
def test_any_text_is_read_or_refused(pipeline: TextPipeline, text: str) -> None:
    try:
        document = pipeline.read(text)
    except TextError:
        return
    assert pipeline.read(text) == document
    assert unicodedata.is_normalized("NFC", document.text)
    assert document.text == " ".join(document.text.split())
    assert not {unicodedata.category(char) for char in document.text} & {"Cc", "Cf", "Cs", "Co"}
    assert len(document.terms) <= 8
    assert len({term.casefold() for term in document.terms}) == len(document.terms)
    assert all(term and term == term.strip() for term in document.terms)


words = st.sampled_from("咖啡 coffee trail 臺北 running, 好喝！ Café 3 C# ok. привет ラーメン".split())  # noqa: SIM905 - words read easier so


@settings(deadline=None)  # dictionaries are loaded at the first text
@given(st.lists(words, min_size=1, max_size=20))
def test_clean_text_is_left_alone(pipeline: TextPipeline, parts: list[str]) -> None:
    once = pipeline.read(" ".join(parts)).text
    assert pipeline.read(once).text == once


def test_lone_surrogates_are_dropped(pipeline: TextPipeline) -> None:
    assert pipeline.read("caf\ud83d coffee").text == "caf coffee"
