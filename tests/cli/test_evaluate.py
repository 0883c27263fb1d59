"""`evaluate` on a tiny model and a log that can be learnt from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import node
import pytest
from command_line import run, write_small_log

from penchant_pipelines.evaluation import lineup, protocol

FEW = ["penchant", "ewma", "popularity", "random"]
ONLY = [word for name in FEW for word in ("--only", name)] + ["--seed", "3"]
BROWSER = Path(__file__).parents[1] / "browser"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and the small log as files."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_small_log(folder)
    with (folder / "signals.jsonl").open("a") as file:
        file.write('{"id": "nobody", "behavior": {"item_id": "0-1"}}\n')
    return folder


def evaluate(folder: Path, name: str, *arguments: str) -> tuple[int, str, str]:
    files: list[str | Path] = [
        "--items",
        folder / "items.jsonl",
        "--signals",
        folder / "signals.jsonl",
        "--report",
        folder / name,
    ]
    settings: list[str | Path] = ["--set", f"encoder.model={folder / 'model'}", "--cache", folder / "cache"]
    return run("evaluate", *files, *settings, *arguments)


class References(HTMLParser):
    """Collects all that a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset", "action"}
        ]


def check_figures(report: dict[str, Any]) -> None:
    assert set(report) >= {"protocol", "methods", "against", "groups"}
    assert set(report["methods"]) == set(FEW)
    assert set(report["against"]) == set(FEW) - {"penchant"}
    for values in report["methods"].values():
        for metric in ("ndcg@10", "recall@10", "recall@50", "mrr@50"):
            mean, low, high = values[metric]
            assert 0 <= low <= mean <= high <= 1
    for name, values in report["against"].items():
        difference, low, high, p = values["ndcg@10"]
        assert low <= difference <= high
        assert 0 < p <= 1
        ours, theirs = (report["methods"][each]["ndcg@10"][0] for each in ("penchant", name))
        assert difference == pytest.approx(ours - theirs, abs=2e-6)


@pytest.fixture(scope="module")
def a_few_make_a_cut() -> Iterator[None]:
    """The small log has too few users for a single cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "FEWEST_USERS_OF_A_CUT", 10)
        yield


@pytest.fixture(scope="module")
def evaluated(folder: Path, a_few_make_a_cut: None) -> tuple[str, str]:
    """What the command says while it makes `first.json` and `first.html`: stdout, stderr."""
    code, out, err = evaluate(folder, "first.json", *ONLY, "--html", str(folder / "first.html"))
    assert code == 0, err
    return out, err


@pytest.mark.slow
def test_a_log_is_replayed_and_reported_the_same_each_time(
    folder: Path, evaluated: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [folder / "first.html", folder / "second.html"]
    out, err = evaluated
    assert "left out: signals.jsonl line 421: user_id: must not be empty" in err
    assert "30 users" in out
    assert "signals; left out: 1\n" in out
    assert all(name in out for name in FEW)
    report = json.loads((folder / "first.json").read_text())
    check_figures(report)
    # Users keep to a topic that titles tell.
    assert report["against"]["random"]["ndcg@10"][1] > 0
    shelf = report["groups"]["cold_items_among_themselves"]["methods"]
    assert shelf["penchant"]["ndcg@10"][0] > shelf["random"]["ndcg@10"][0]
    told = report["protocol"]
    assert told["left_out"] == 1
    assert (told["version"], told["warnings"]) == (version("penchant"), [])
    assert told["sha256"]["items"] == sha256((folder / "items.jsonl").read_bytes()).hexdigest()
    assert "[difference, low, high, p]" in report["reading"]
    assert len(report["seeds"]["random"]) == report["protocol"]["seeds"] == 2

    # By one process now, and by as many as there are cores before.
    monkeypatch.setattr(lineup, "cores", lambda: 1)
    evaluate(folder, "second.json", *ONLY, "--html", str(pages[1]))
    evaluate(folder, "other.json", "--only", "random", "--seed", "4")
    first, second, other = ((folder / f"{name}.json").read_bytes() for name in ("first", "second", "other"))
    assert first == second
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert json.loads(other)["methods"]["random"] != report["methods"]["random"]

    text = pages[0].read_text()
    references = References()
    references.feed(text)
    assert all(reference.startswith("#") for reference in references.found)
    assert not references.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert not re.findall(r"url\((?!#)|@import", text)
    assert text.count("<svg") == 2
    assert f"each of {report['single_cut']['users']} users" in text
    assert all(name in text for name in FEW)


@pytest.fixture(scope="module")
def looks(folder: Path, evaluated: tuple[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What a reader meets on the page in a browser, by screen and colour scheme."""
    browser = folder / "browser"
    node.install(BROWSER, browser)
    looked = node.run(browser, "look.mjs", folder / "first.html")
    shutil.rmtree(browser)  # a browser takes 300 MB
    assert (looked.returncode, looked.stderr) == (0, "")
    return {(look["screen"], look["scheme"]): look for look in json.loads(looked.stdout)}


@pytest.mark.slow
def test_a_reader_sees_all_of_the_page_and_nothing_else_is_asked_for(
    folder: Path, looks: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert set(looks) == {(screen, scheme) for screen in ("phone", "desk") for scheme in ("light", "dark")}
    for (screen, _), look in looks.items():
        assert "Penchant" in look["title"]
        assert look["requests"] == [(folder / "first.html").as_uri()]
        assert look["messages"] == []
        assert look["overflow"] == 0
        assert len(look["plots"]) == 2
        for plot in look["plots"]:
            assert plot["texts"] >= 8
            assert plot["smallest"] >= 12
            assert plot["cut"] == []
        # What is wider than the screen is scrolled by key, part by part.
        assert all(part["focused"] for part in look["scrolled"])
        assert all((part["moved"] > 0) == (part["beyond"] > 0) for part in look["scrolled"])
        assert any(part["beyond"] for part in look["scrolled"]) == (screen == "phone")
    assert looks["desk", "light"]["paper"] != looks["desk", "dark"]["paper"]


@pytest.mark.slow
def test_it_is_readable_for_everybody(looks: dict[tuple[str, str], dict[str, Any]]) -> None:
    """By the rules of axe: contrast in either scheme, names, order, landmarks."""
    assert {place: look["violations"] for place, look in looks.items() if look["violations"]} == {}


def test_settings_that_are_tried_change_no_question(folder: Path) -> None:
    """With the second, what is rated .5 would be a dislike, and no right answer."""
    told = []
    for number, neutral in enumerate(("0", "0.9")):
        tried = ["--only", "random", "--seeds", "1", "--set", f"interests.neutral_rating={neutral}"]
        code, _, err = evaluate(folder, f"tried{number}.json", *tried)
        assert code == 0, err
        report = json.loads((folder / f"tried{number}.json").read_text())
        told.append((report["protocol"]["queries"], report["methods"], report["groups"]))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--only", "magic"], 1, "there is no method 'magic'; choose from penchant, "),
        (["--only", "penchant-untuned"], 1, "'penchant-untuned' is the engine without its adapter"),
        (["--set", "encoder.model"], 2, "KEY=VALUE"),
        (["--seeds", "0"], 2, "--seeds"),
        (["--seed", "5000000000"], 2, "--seed"),
        (["--html", "/nowhere/page.html"], 2, "/nowhere is no folder that can be written to"),
        (["--report", "/nowhere/report.json"], 2, "/nowhere is no folder that can be written to"),
        (["--set", "encoder.adapter=/nowhere"], 1, "warning: an adapter that was trained on this log has seen most"),
    ],
)
def test_wrong_usage_says_what_is_wrong(folder: Path, arguments: list[str], code: int, said: str) -> None:
    found, _, err = evaluate(folder, "unwritten.json", *arguments)
    assert found == code
    assert said in err
    assert not (folder / "unwritten.json").exists()


def test_a_log_without_later_days_is_refused(folder: Path) -> None:
    lines = (folder / "signals.jsonl").read_text().splitlines(keepends=True)
    first_days = [line for line in lines if json.loads(line)["id"].endswith("-0")]
    short = folder / "short"
    short.mkdir()
    for name in ("items.jsonl", "model"):
        (short / name).symlink_to(folder / name)
    (short / "signals.jsonl").write_text("".join(first_days))
    code, _, err = evaluate(short, "unwritten.json")
    assert code == 1
    assert "signals: leave nothing to test on" in err
