from __future__ import annotations

from pathlib import Path

import pytest

from penchant_pipelines.text import TextPipeline, TextSettings
from penchant_pipelines.text.keywords import is_beginning
from penchant_pipelines.text.lexicon import english_fitness, spaced_weight


@pytest.fixture(scope="module")
def pipeline() -> TextPipeline:
    return TextPipeline(TextSettings())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("My sourdough starter finally rose, so I baked rye bread", {"sourdough starter", "rye bread"}),
        ("Went trail running in the hills. Trail running is the best!", {"trail running"}),
        ("早上喝了一杯手冲咖啡，豆子来自云南。手冲咖啡的味道真好", {"手冲咖啡", "云南", "豆子"}),
        ("在臺北的咖啡館喝手沖", {"臺北", "咖啡館"}),
        ("比特币又跌了，B站上有人讲区块链", {"比特币", "B站", "区块链"}),
        ("首尔的月季开了，中秋去大连", {"首尔", "月季", "中秋", "大连"}),
        ("讲明朝的书", {"明朝"}),
        ("密室逃脫和劇本殺，小紅書上都有", {"密室逃脫", "劇本殺", "小紅書"}),
        ("用 Docker 部署 Kubernetes 集群", {"docker", "kubernetes", "集群"}),
        ("The NASA launch was delayed", {"NASA"}),
        ("京都のラーメンが好き", {"京都", "ラーメン"}),
        ("아침에 커피를 마셨다", {"커피"}),
        ("Ich backe gerne Sauerteigbrot", {"sauerteigbrot"}),
        ("मुझे कॉफ़ी और क्रिकेट पसंद है", {"कॉफ़ी", "क्रिकेट"}),
        ("I cook दाल at home", {"दाल"}),
        ("ฉันชอบกาแฟ", {"ฉันชอบกาแฟ"}),
    ],
)
def test_terms(pipeline: TextPipeline, text: str, wanted: set[str]) -> None:
    terms = pipeline.read(text).terms
    assert wanted <= {part for term in terms for part in (term, *term.split())}


def test_hashtags_come_first_in_the_users_script(pipeline: TextPipeline) -> None:
    terms = pipeline.read("今天在臺北散步 #手沖咖啡# #TrailRunning #NYC").terms
    assert terms[:3] == ("手沖咖啡", "trail running", "NYC")
    assert "臺北" in terms


@pytest.mark.parametrize(
    ("tag", "term"),
    [("#“完美的日子”#", "完美的日子"), ("#“茶”与“咖啡”#", "茶与咖啡"), ("＃「完美的日子」＃", "完美的日子")],
)
def test_a_hashtag_in_quotation_marks_is_no_beginning_of_a_text(pipeline: TextPipeline, tag: str, term: str) -> None:
    terms = pipeline.read(f"今天 {tag}").terms
    assert terms[0] == term
    assert not any(map(is_beginning, terms))


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("same", "“same”"),
        ("Good morning! Sooo tired, hehehe", "“Good morning! Sooo…”"),
        ("晚安，哈哈哈哈哈", "“晚安，哈哈哈”"),
        ("他 她 it 😂", "“他 她 it”"),
        ("我觉得这个真的非常好，你们可以试试", "“我觉得这个真的非常好，你…”"),
        ("I really think that this is the best thing ever", "“I really think that…”"),
        ("what a " + "ha" * 20, "“what a…”"),
        ("Sooo looong, yesss", "“Sooo looong, yesss”"),
    ],
)
def test_words_without_content_are_no_terms_but_the_beginning_of_the_text_is(
    pipeline: TextPipeline, text: str, quoted: str
) -> None:
    document = pipeline.read(text)
    assert document.terms == (quoted,)
    assert is_beginning(quoted)
    assert not document.wordless


@pytest.mark.parametrize("text", ["123 456", "😂😂☕", "5:0!", "+1", "[doge]", "[泪] [泪]"])
def test_emoji_figures_and_marks_are_no_words(pipeline: TextPipeline, text: str) -> None:
    document = pipeline.read(text)
    assert document.wordless
    assert document.terms == ()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("徒步十二公里,腿都断了", ("徒步",)),
        ("新相机到了", ("相机",)),
        ("刚看完三体", ("三体",)),
        ("这是一座老城", ("老城",)),
        ("這茶不錯", ("茶",)),
        ("这猫真蠢", ("猫",)),
        ("我怕狗", ("狗",)),
        ("很香的咖啡", ("咖啡",)),
        ("太苦的咖啡，但是很纯", ("咖啡",)),
    ],
)
def test_chinese_words_are_found_whole(pipeline: TextPipeline, text: str, terms: tuple[str, ...]) -> None:
    assert pipeline.read(text).terms == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("今天看NBA总决赛", {"NBA", "总决赛"}),
        ("奥迪A4", {"A4", "奥迪"}),
        ("PS5", {"PS5"}),
        ("3D打印机和5G手机", {"3D", "打印机", "5G", "手机"}),
        ("3d printing at 9AM, my 1st", {"3d printing"}),
        ("80s", {"80s"}),
        ("30s of 1980s jazz", {"1980s jazz"}),
        ("看3d电影，听80s音乐", {"3d", "电影", "80s", "音乐"}),
        ("8GB内存，早上9AM", {"内存"}),
        ("learning .NET, asp.net and node.js", {"learning .NET", "asp.net", "node.js"}),
        ("把.net升级了", {".net", "升级"}),
    ],
)
def test_acronyms_and_names_with_a_figure_are_as_people_write_them(
    pipeline: TextPipeline, text: str, terms: set[str]
) -> None:
    assert set(pipeline.read(text).terms) == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("We went hiking.it was steep", ("hiking", "steep")),
        ("Sat on the beach.Sushi after that", ("beach", "sushi")),
        ("I love it.hiking is great", ("hiking",)),
        ("node.js, St.Vincent, J.K. Rowling, last.fm", ("node.js", "st.vincent", "J.K", "rowling", "last.fm")),
    ],
)
def test_a_missing_space_after_a_full_stop_makes_no_word_of_two(
    pipeline: TextPipeline, text: str, terms: tuple[str, ...]
) -> None:
    assert set(pipeline.read(text).terms) == set(terms)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("今天的火锅[笑cry][doge][允悲]", ("火锅",)),
        ("[泪][泪]咖啡洒了", ("咖啡",)),
        ("[足球] 英超", ("足球", "英超")),
        ("[三体](https://a.example/1)", ("三体",)),
    ],
)
def test_emoji_by_name_are_no_terms_but_what_a_text_is_filed_under_is(
    pipeline: TextPipeline, text: str, terms: tuple[str, ...]
) -> None:
    assert pipeline.read(text).terms == terms


def test_a_part_of_a_term_is_left_out_unless_it_is_used_by_itself(pipeline: TextPipeline) -> None:
    assert pipeline.read("rye bread").terms == ("rye bread",)
    assert "bread" in pipeline.read("rye bread, and more bread, any bread").terms


@pytest.mark.parametrize("phrase", ["超甜", "不香", "炒出", "带得", "最牛", "真蠢", "换个", "看著", "椅上"])
def test_an_adverb_with_its_word_and_a_word_with_an_ending_of_no_name_are_no_guessed_words(
    pipeline: TextPipeline, phrase: str
) -> None:
    assert pipeline.read(f"{phrase}，西瓜").terms == ("西瓜",)


def test_a_single_character_is_a_term_only_where_no_longer_word_is(pipeline: TextPipeline) -> None:
    assert pipeline.read("猫！").terms == ("猫",)
    assert pipeline.read("狗向着我跑了过来").terms == ("狗",)
    assert pipeline.read("猫和咖啡").terms == ("咖啡",)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Day 3: 5 km run in 25 minutes", ("run",)),
        ("10-mile run", ("run",)),
        ("Run out of 5 kg flour", ("flour",)),
        ("10 km by the river", ("river",)),
        ("10 km", ("km",)),
        ("跑了十公里", ("公里",)),
        ("Green Mile", ("green mile",)),
        ("16 GB of memory", ("memory",)),
    ],
)
def test_a_unit_is_a_term_only_where_nothing_else_is_and_what_is_run_far_is_a_run(
    pipeline: TextPipeline, text: str, terms: tuple[str, ...]
) -> None:
    assert pipeline.read(text).terms == terms


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("playing Baldur's Gate", "baldur's gate"),
        ("my SISTER’s wedding", "sister's wedding"),
        ("the market's", "market"),
    ],
)
def test_a_phrase_keeps_its_apostrophe(pipeline: TextPipeline, text: str, term: str) -> None:
    assert term in pipeline.read(text).terms


def test_what_was_done_or_felt_is_no_interest(pipeline: TextPipeline) -> None:
    said = "Kids ate it, proud. Stuck again, threw it away, slept, it sucked: pad thai"
    assert pipeline.read(said).terms == ("pad thai",)


@pytest.mark.parametrize(("word", "names"), [("exchanged", False), ("illegal", False), ("seed", True), ("shed", True)])
def test_what_is_past_or_an_adjective_names_worse_than_a_thing(word: str, names: bool) -> None:
    assert (english_fitness(word) == 0) == names


def test_what_ends_as_the_past_does_and_is_a_thing_weighs_as_one() -> None:
    assert spaced_weight("seed", "en") > 1.5 * spaced_weight("asked", "en")
    assert spaced_weight("shed", "en") > 1.5 * spaced_weight("exchanged", "en")


def test_what_stands_before_a_name_is_no_part_of_it(pipeline: TextPipeline) -> None:
    assert {"elden ring", "beat"} <= set(pipeline.read("Finally beat Elden Ring").terms)
    assert pipeline.read("a craft IPA").terms == ("craft IPA",)


def test_capitals_do_not_make_acronyms_of_a_shouted_text(pipeline: TextPipeline) -> None:
    assert pipeline.read("GRAVEL BIKE RIDES").terms[0].islower()


def test_the_number_of_terms_is_bounded() -> None:
    text = "咖啡 茶叶 登山 摄影 钢琴 足球 烘焙 露营 编程 天文"
    assert len(TextPipeline(TextSettings(max_terms=3)).read(text).terms) == 3
    assert TextPipeline(TextSettings(max_terms=0)).read(text).terms == ()


def test_words_of_the_user_dictionary_lead(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("绿云山谷 100000\n", encoding="utf-8")
    pipeline = TextPipeline(TextSettings(user_dictionary=words))
    assert pipeline.read("周末去绿云山谷露营").terms[0] == "绿云山谷"
    assert pipeline.read("週末去綠雲山谷露營").terms[0] == "綠雲山谷"
