"""The report as a page for people: one file with everything in it, plots included."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from penchant_pipelines.evaluation.report import OURS, p_words
from penchant_pipelines.statistics import FEWEST_USERS

SCORE = "ndcg@10"
METRICS = {
    "ndcg@10": "NDCG@10", "recall@10": "recall@10", "recall@50": "recall@50", "mrr@50": "MRR@50",
    "diversity@10": "diversity@10", "novelty@10": "novelty@10", "calibration_kl@10": "calibration@10",
    "coverage@10": "coverage@10", "verdict_auc": "verdicts, AUC", "verdict_f1": "verdicts, F1",
}  # fmt: skip
"""Figures of the great table, and what it calls them."""
METHODS = {
    "penchant": "the whole engine: interests read from texts and what people took to, mixed as the log has taught",
    "penchant-untuned": "the same with the encoder as it was before it was tuned",
    "random": "a draw",
    "popularity": "what most people took to, ever",
    "popularity-30d": "the same of the last 30 days",
    "popularity-7d": "the same of the last 7 days",
    "last-post": "items whose text is most like the user's last signal",
    "mean-of-last": "items most like the mean of the user's last signals",
    "ewma": "items most like a mean of all the user's signals in which older ones fade",
    "bm25": "a word search by what the user wrote and took to",
    "tfidf": "items most like a fading sum of the words that the user wrote and took to, rare words counting more",
    "svm": "a classifier for each user, on words",
    "trees": "decision trees for each user, on words",
    "user-knn": "what people took to who have much in common with the user; reads no text",
    "item-knn": "what goes together with what the user took to; reads no text",
    "ease": "the same, learnt for all items at once (Steck 2019)",
    "als": "users and items as factors of who took to what (Hu, Koren & Volinsky 2008)",
    "sasrec": "a network that foretells the next item from those before (Kang & McAuley 2018); reads no text",
    "gru-text": "a recurrent network over what the user's signals say",
    "sasrec-text": "a network as sasrec, over what the user's signals say",
}
"""What each method of the line-up does, for who has never heard of it."""
SURE = 0.05
"""Highest p that is called more than chance."""
_VERDICTS = {1: ("ahead", "good"), -1: ("behind", "bad"), 0: ("open", "open")}
"""Of Penchant, in a word, and the class of the page that it is shown by."""
_BLUE, _GREY, _GREEN, _RED, _AXIS, _GRID = "#0b5fa5", "#7a8194", "#17713a", "#b3261e", "#c9cedb", "#eceef3"
_STYLES = {
    _BLUE: "var(--ours)", _GREY: "var(--grey)", _GREEN: "var(--good)", _RED: "var(--bad)", _AXIS: "var(--line)",
    _GRID: "var(--line)", "#000000": "currentColor",
}  # fmt: skip
"""What the page calls the colours of a plot: they differ by light and dark."""


def page(report: Mapping[str, Any]) -> str:
    """Make the page of a report; the same report gives the same page, byte by byte."""
    methods = report["methods"]
    scores = {name: told[SCORE][0] for name, told in methods.items() if told[SCORE][0] is not None}
    ranked = sorted(scores, key=lambda name: -scores[name])
    against = report["against"]
    users = report["protocol"]["users"]
    headline, sureness = _said(ranked, against, users)
    # What one or two users rated tells nothing of a method.
    rated = report["protocol"]["verdict_users"] >= FEWEST_USERS
    shown = [metric for metric in METRICS if rated or not metric.startswith("verdict")]
    told = {name: against[name][SCORE] for name in ranked if name in against and None not in against[name][SCORE][:3]}
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = jinja.from_string(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.render(
        headline=headline,
        sureness=sureness,
        protocol=report["protocol"],
        few=users < FEWEST_USERS,
        fewest=FEWEST_USERS,
        ranking=_plot({name: methods[name][SCORE] for name in ranked}, "NDCG@10", _of_method),
        differences=_plot(told, "Penchant's lead in NDCG@10", partial(_of_lead, users)) if told else "",
        groups=[_group(name, group) for name, group in report["groups"].items()] if told else [],
        cut=_cut(report["single_cut"]) if report["single_cut"] else None,
        explained={name: METHODS[name] for name in ranked if name in METHODS},
        verdict_users=report["protocol"]["verdict_users"],
        metrics=[METRICS[metric] for metric in shown],
        rows=[{"name": name, "figures": [_figure(methods[name][metric][0]) for metric in shown]} for name in ranked],
        settings=[
            {"method": method, "setting": name, "chosen": f"{told['chosen']:.0%}", "alone": _figure(told[SCORE])}
            for method, names in report["settings"].items()
            for name, told in names.items()
        ],
        fine_print=json.dumps(report["protocol"], indent=1, ensure_ascii=False),
    )


def _said(ranked: Sequence[str], against: Mapping[str, Any], users: int) -> tuple[str, str]:
    others = [name for name in ranked if name != OURS]
    if OURS not in ranked or not others:
        few = f" Fewer than {FEWEST_USERS} users are too few to tell anyway." if users < FEWEST_USERS else ""
        told = "No difference was tested: that takes Penchant and another method."
        return f"{ranked[0]} has the highest score", told + few
    rival = others[0]
    lead, low, high, p = against[rival][SCORE]
    leader = "Penchant is ahead" if lead > 0 else f"{rival} is ahead of Penchant"
    title = f"{leader}, but not for sure" if lead else f"Penchant and {rival} are level"
    if users < FEWEST_USERS:
        return title, f"Fewer than {FEWEST_USERS} users are too few to tell: others may well be different."
    ahead = sum(_verdict(against[name][SCORE], users) > 0 for name in others)
    counted = f"Beyond chance Penchant is ahead of {ahead} of the {len(others)} other methods."
    chance = f"lead {lead:+.4f}, with 95 % certainty between {low:+.4f} and {high:+.4f}, {p_words(p)}"
    verdict = _verdict(against[rival][SCORE], users)
    if verdict > 0:
        return "Penchant foretells best what users take to next", f"The next best is {rival} ({chance}). {counted}"
    if verdict < 0:
        return f"{rival} foretells better than Penchant", f"That is more than chance ({chance}). {counted}"
    return title, f"The difference from {rival} may be chance ({chance}). {counted}"


def _verdict(difference: Sequence[float | None], users: int) -> int:
    """Tell whether Penchant is ahead (1), behind (−1), or neither beyond chance, after correction for many methods."""
    lead, _, _, p = difference
    if users < FEWEST_USERS or lead is None or p is None or p >= SURE:
        return 0
    return 1 if lead > 0 else -1


def _group(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    scores = {method: told[SCORE][0] for method, told in group["methods"].items() if told[SCORE][0] is not None}
    ours = scores.pop(OURS)
    rival = max(scores, key=lambda method: scores[method])
    difference = group["against"][rival][SCORE]
    verdict, tone = _VERDICTS[_verdict(difference, group["users"])]
    if verdict == "open":
        verdict += f" ({difference[0]:+.4f})"
    if group["users"] < FEWEST_USERS:
        verdict, tone = "too few users to tell", "note"
    return {
        "name": name.replace("_", " ").replace("history", "signals before:"),
        "users": group["users"], "queries": group["queries"], "ours": _figure(ours),
        "other": rival, "theirs": _figure(scores[rival]), "verdict": verdict, "tone": tone,
    }  # fmt: skip


def _cut(cut: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, told in sorted(cut["methods"].items(), key=lambda pair: -pair[1][SCORE][0]):
        row = {"name": name, "score": _figure(told[SCORE][0]), "lead": "–", "verdict": "–", "tone": "note"}
        if name in cut["against"]:
            difference = cut["against"][name][SCORE]
            row["lead"] = "{:+.4f} ({:+.4f} … {:+.4f})".format(*difference)
            row["verdict"], row["tone"] = _VERDICTS[_verdict(difference, cut["users"])]
        rows.append(row)
    return {"users": cut["users"], "rows": rows}


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _of_method(name: str, _: Sequence[float]) -> str:
    return _BLUE if name == OURS else _GREY


def _of_lead(users: int, _: str, told: Sequence[float]) -> str:
    return {1: _GREEN, -1: _RED, 0: _GREY}[_verdict(told, users)]


def _plot(figures: Mapping[str, Sequence[float]], axis: str, colour: Any) -> Markup:
    """Dots with intervals, a line a method, as inline SVG; its title tells the figures to who can't see them."""
    title = f"{axis}: " + ", ".join(f"{name} {told[0]:.4f}" for name, told in figures.items())
    # Ids in the SVG are random otherwise, and the same report would give another page.
    with mpl.rc_context(
        {"svg.hashsalt": "penchant", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 12}
    ):
        figure = Figure(figsize=(4.6, 0.7 + 0.3 * len(figures)), layout="constrained")
        axes = figure.subplots()
        for line, (name, told) in enumerate(figures.items()):
            mean, low, high = told[:3]
            axes.plot([low, high], [line, line], color=colour(name, told), linewidth=2.5, alpha=0.5)
            axes.plot([mean], [line], "o", color=colour(name, told), markersize=7)
        axes.set_yticks(range(len(figures)), list(figures))
        # Room for a whole dot at either end, however few there are.
        axes.set_ylim(len(figures) - 0.5, -0.5)
        axes.axvline(0, color=_AXIS, linewidth=1, zorder=0)
        axes.grid(axis="x", color=_GRID)
        axes.set_axisbelow(True)
        axes.set_xlabel(axis)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        file = io.StringIO()
        told_of = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata={**told_of, "Title": title}, transparent=True)
    drawn = file.getvalue()
    for colour, name in _STYLES.items():
        drawn = drawn.replace(colour, name)
    drawn = drawn[drawn.index("<svg") :].replace("<svg", '<svg role="img"', 1)
    return Markup(drawn)  # noqa: S704 - names of methods are ours, and matplotlib escapes them
