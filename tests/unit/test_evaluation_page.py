"""What the page says in words follows from the figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from penchant_pipelines.evaluation.lineup import NAMES
from penchant_pipelines.evaluation.page import METHODS, METRICS, page

SCORES = {"penchant": 0.07, "ewma": 0.05}


def report(lead: float, p: float, users: int = 40, all_users: int = 40) -> dict[str, Any]:
    """Penchant against one other, by so many users, and a group of so many."""

    def methods() -> dict[str, Any]:
        means = {"penchant": 0.05 + lead, "ewma": 0.05, "<b>": None}
        return {
            name: {metric: [mean, mean and mean - 0.01, mean and mean + 0.01] for metric in METRICS}
            for name, mean in means.items()
        }

    against = {"ewma": {"ndcg@10": [lead, lead - 0.01, lead + 0.01, p]}}
    told = {
        "depth": 50,
        "users": all_users,
        "queries": 400,
        "items": 12345,
        "signals": 99,
        "verdict_users": users,
        "warnings": ["beware"],
    }
    group = {"users": users, "queries": 300, "methods": methods(), "against": against}
    return {
        "protocol": told, "methods": methods(), "against": against, "groups": {"cold_items": group},
        "single_cut": None, "settings": {"ewma": {"half_life_days=2": {"chosen": 0.25, "ndcg@10": 0.04}}}, "seeds": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lead", "p", "headline", "verdict"),
    [
        (0.02, 0.01, "Penchant foretells best", ">ahead<"),
        (0.02, 0.2, "Penchant is ahead, but not for sure", "open (+0.0200)"),
        (0.0, 1.0, "Penchant and ewma are level", "open (+0.0000)"),
        (-0.02, 0.2, "ewma is ahead of Penchant, but not for sure", "open (-0.0200)"),
        (-0.02, 0.01, "ewma foretells better than Penchant", ">behind<"),
    ],
)
def test_nothing_is_claimed_that_may_be_chance(lead: float, p: float, headline: str, verdict: str) -> None:
    text = page(report(lead, p))
    assert f"<h1>{headline}" in text
    assert verdict in text
    assert ("Beyond chance Penchant is ahead of 1 of the 1" in text) == (lead > 0 and p < 0.05)
    assert f"p = {p:.3f}" in text
    assert "Warning: beware." in text
    assert "12,345" in text
    assert "25%" in text


def test_a_handful_of_users_decides_nothing() -> None:
    assert "too few users to tell" in page(report(0.02, 0.001, users=3))


@pytest.mark.parametrize(("p", "verdict"), [(0.01, "ahead"), (0.2, "open")])
def test_the_single_cut_is_shown_where_it_is_told(p: float, verdict: str) -> None:
    told = report(0.02, p)
    assert "single cut" not in page(told)
    methods = {name: {"ndcg@10": [score, score - 0.01, score + 0.01]} for name, score in SCORES.items()}
    told["single_cut"] = {"users": 1234, "methods": methods, "against": told["against"]}
    text = page(told)
    assert "each of 1,234 users" in text
    row = re.search(r"<td>ewma</td><td>0.0500</td><td>(.*)</td><td class=.*>(.*)</td></tr>", text)
    assert row
    assert row.groups() == ("+0.0200 (+0.0100 … +0.0300)", verdict)
    assert '<tr class="ours"><td>penchant</td><td>0.0700</td><td>–</td>' in text
    # With no Penchant in the race there is no lead.
    told["single_cut"]["against"] = {}
    assert "<td>ewma</td><td>0.0500</td><td>–</td>" in page(told)


@pytest.mark.parametrize("lead", [0.02, -0.02])
def test_of_a_handful_of_users_neither_headline_nor_plot_says_more_than_chance(lead: float) -> None:
    few, many = (page(report(lead, 0.0001, users, users)) for users in (9, 10))
    colour = "stroke: var(--good)" if lead > 0 else "stroke: var(--bad)"
    assert colour in many
    assert "p &lt; 0.001" in many
    assert colour not in few
    assert "but not for sure</h1>" in few
    assert "Fewer than 10 users are too few to tell" in few
    assert "Here all are grey" in few
    assert "eyond chance" not in few


def test_every_method_is_explained() -> None:
    assert set(METHODS) == set(NAMES)
    text = page(report(0.02, 0.01))
    assert f"<dt>penchant</dt><dd>{METHODS['penchant']}</dd>" in text
    assert "<dt>als</dt>" not in text


def test_ratings_of_a_handful_of_users_are_no_figure() -> None:
    many, few = (page(report(0.02, 0.01, users)) for users in (10, 1))
    assert "verdicts, AUC" in many
    assert "of 10 users" in many
    assert "verdicts, AUC" not in few
    assert "1 user gave both high" in few


class Parts(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_plots_have_names_and_what_scrolls_takes_focus() -> None:
    text = page(report(0.02, 0.01))
    parts = Parts()
    parts.feed(text)
    plots = [attributes for tag, attributes in parts.found if tag == "svg"]
    assert [plot["role"] for plot in plots] == ["img", "img"]
    assert "<title>NDCG@10: penchant 0.0700, ewma 0.0500</title>" in text
    wide = [attributes for _, attributes in parts.found if attributes.get("class") == "wide"]
    assert len(wide) == len(plots) + sum(tag == "table" for tag, _ in parts.found)
    for attributes in wide:
        assert (attributes["tabindex"], attributes["role"]) == ("0", "region")
        assert attributes["aria-label"]
    assert "prefers-color-scheme: dark" in text
    # Colours of plots follow the page's: none is fixed.
    assert not re.search(r"(fill|stroke): #", text)
