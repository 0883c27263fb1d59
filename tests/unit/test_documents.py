"""The documents: what links to what."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
)


def anchors(document: Path) -> list[str]:
    """What each heading is called in links, as GitHub does."""
    prose = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_contents_of_the_decisions_name_each_of_them() -> None:
    document = ROOT / "docs" / "decisions.md"
    text = document.read_text("utf-8")
    contents = re.findall(r"^  - \[(.*)\]\(#(.*)\)$", text.split("\n## ")[0], re.MULTILINE)
    assert sorted(name for name, _ in contents) == sorted(re.findall(r"^## (.*)$", text, re.MULTILINE))


def test_every_reason_of_an_error_is_told() -> None:
    told = (ROOT / "docs/operating.md").read_text("utf-8").partition("\n## Errors\n")[2].partition("\n## ")[0]
    whole, begun = set(re.findall(r"`([A-Z_]+)`", told)), tuple(re.findall(r"`([A-Z_]+_)…`", told))
    raised = re.compile(r'(?:WrongState|Conflict|Unavailable|__init__)\(\s*"([A-Z]+(?:_[A-Z]+)*)"')
    sources = [file for folder in ("pipelines", "server/penchant") for file in (ROOT / folder).rglob("*.py")]
    reasons = {reason for file in sources for reason in raised.findall(file.read_text("utf-8"))}
    assert {"JOB_RUNNING", "OVERLOADED", "USER_MERGED"} <= reasons
    assert [reason for reason in sorted(reasons) if reason not in whole and not reason.startswith(begun)] == []
