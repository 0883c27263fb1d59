from __future__ import annotations

import pytest

from penchant_pipelines.encoder import Encoder
from penchant_pipelines.interests import Blender, Calibration, Evidence, InterestSettings, Profile, Recipe
from penchant_pipelines.model import MICROS_PER_DAY, Item, Post
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("how to get better at chess", "chess"),
        ("I love rye bread!", "rye bread"),
        ("I've got a new cat 🐱", "cat cat face"),
        ("今天又去越野跑了，非常开心", "越野跑"),
        ("我喜歡貓", "猫"),
        ("rock, indie, classic rock", "rock, indie, classic rock"),
        ("learning C++ again", "learning C++"),
        (".NET, all over again", ".NET"),
        ("What is vitamin C for", "vitamin C"),
        # What says nothing at all is kept, and so is what stands in a long text or in another language.
        ("how are you", "how are you"),
        ("I went to the hills with my dog and it was so good that we stayed", None),
        ("me encanta el café de filtro", None),
    ],
)
def test_a_short_post_is_read_by_what_it_says(text: str, said: str | None) -> None:
    document = READER.post(Post(text))[0]
    assert document.text == (text if said is None else said)
    assert READER.subject(text, "", "", None) == document
    of_an_item = READER.post(Post(text, item_id="i"))[0]
    assert of_an_item.text == READER.document(text, "", "text").text
    assert READER.subject(text, "", "i", None) == of_an_item


CHESS = ("chess openings", "endgame tactics", "the sicilian defence", "grandmaster games")
BREAD = ("a sourdough starter", "rye bread", "baguette dough", "a crusty loaf")
STARS = ("telescopes", "the moons of Jupiter", "meteor showers", "photos of nebulae")


@pytest.mark.parametrize("frame", ["I love {}", "spent the evening on {} again", "how to get better at {}"])
def test_subjects_of_short_posts_stay_apart_whatever_words_they_come_in(
    encoder: Encoder, calibration: Calibration, frame: str
) -> None:
    subjects = [subject for turn in zip(CHESS, BREAD, STARS, strict=True) for subject in turn]
    documents = [READER.post(Post(frame.format(subject)))[0] for subject in subjects]
    vectors = encoder.encode([document.text for document in documents])
    blender, profile, taken = Blender(Recipe(InterestSettings(), calibration, "space")), Profile(), []
    for day, (document, vector) in enumerate(zip(documents, vectors, strict=True)):
        told = Evidence(f"{day:02}", day * MICROS_PER_DAY, vector, terms=document.terms, language="en")
        taken.append(blender.add(profile, told))
    by_subject = [set(taken[number::3]) for number in range(3)]
    assert not by_subject[0] & by_subject[1]
    assert not by_subject[0] & by_subject[2]
    assert not by_subject[1] & by_subject[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Bumrah's sci-fi", ("bumrah", "sci", "fi")),
        ("O’Brien’s rock'n'roll, 'live'", ("obrien", "rocknroll", "live")),
        ("don't AC/DC", ("dont", "ac", "dc")),
        ("我的T恤和wi-fi", ("我", "的", "t恤", "和", "wi", "fi")),
        ("हिन्दी में", ("हिन्दी", "में")),
        ("1984 (Dune, #2) 9/11", ("1984", "dune")),
        ("… ♥ --", ()),
    ],
)
def test_a_text_is_searched_by_words_without_marks(text: str, words: tuple[str, ...]) -> None:
    assert READER.words_of(text) == words
