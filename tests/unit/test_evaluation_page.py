"""What the page says in words follows from the figures."""

from __future__ import annotations

from typing import Any

import pytest

from penchant_pipelines.evaluation.page import METRICS, page


def report(lead: float, p: float, users: int = 40) -> dict[str, Any]:
    """Penchant against one other, with a group of so many users."""

    def methods() -> dict[str, Any]:
        means = {"penchant": 0.05 + lead, "ewma": 0.05, "<b>": None}
        return {
            name: {metric: [mean, mean and mean - 0.01, mean and mean + 0.01] for metric in METRICS}
            for name, mean in means.items()
        }

    against = {"ewma": {"ndcg@10": [lead, lead - 0.01, lead + 0.01, p]}}
    told = {"depth": 50, "users": 40, "queries": 400, "items": 12345, "signals": 99}
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
        (-0.02, 0.2, "ewma is ahead of Penchant, but not for sure", "open (-0.0200)"),
        (-0.02, 0.01, "ewma foretells better than Penchant", ">behind<"),
    ],
)
def test_nothing_is_claimed_that_may_be_chance(lead: float, p: float, headline: str, verdict: str) -> None:
    text = page(report(lead, p))
    assert f"<h1>{headline}" in text
    assert verdict in text
    assert ("Beyond chance it is ahead of 1 of the 1" in text) == (lead > 0 and p < 0.05)
    assert "12,345" in text
    assert "25%" in text


def test_a_handful_of_users_decides_nothing() -> None:
    assert "too few users to tell" in page(report(0.02, 0.001, users=3))
