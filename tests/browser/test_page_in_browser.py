"""The page of `evaluate`, as a browser shows it: on a phone and on a desk, by day and by night."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import node
import pytest
from command_line import run, write_small_log


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small log."""
    folder = tmp_path_factory.mktemp("page")
    write_small_log(folder)
    only = [word for name in ("penchant", "ewma", "popularity") for word in ("--only", name)]
    files: list[str | Path] = ["--items", folder / "items.jsonl", "--signals", folder / "signals.jsonl"]
    reports: list[str | Path] = ["--report", folder / "report.json", "--html", folder / "page.html"]
    settings = ["--set", f"encoder.model={folder / 'model'}", "--seeds", "1"]
    code, _, err = run("evaluate", *files, *reports, *settings, *only)
    assert code == 0, err
    return folder / "page.html"


@pytest.fixture(scope="module")
def looks(page: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What a reader meets, by screen and colour scheme."""
    browser = page.parent / "browser"
    node.install(Path(__file__).parent, browser)
    looked = node.run(browser, "look.mjs", page)
    shutil.rmtree(browser)  # a browser takes 300 MB
    assert (looked.returncode, looked.stderr) == (0, "")
    return {(look["screen"], look["scheme"]): look for look in json.loads(looked.stdout)}


@pytest.mark.slow
def test_a_reader_sees_all_of_the_page_and_nothing_else_is_asked_for(
    page: Path, looks: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert set(looks) == {(screen, scheme) for screen in ("phone", "desk") for scheme in ("light", "dark")}
    for (screen, _), look in looks.items():
        assert "Penchant" in look["title"]
        assert look["requests"] == [page.as_uri()]
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
