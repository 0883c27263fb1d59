"""How the demo looks: headings, tables of interests and items, and claims that were checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from penchant.cli.output import interest_name, plain
from penchant.v1.interest_service_pb2 import Interest, Profile, Trend
from penchant.v1.recommendation_service_pb2 import FindUsersResponse, Recommendation

_WIDTH = 100
_NAME = 26
_BAR = 12
_INTERESTS = 4
_NUMBERS = {"weight", "score", "similarity", "confidence"}
_WIDE = {"their own words", "item, and what speaks for it", "before", "after"}


class Stage:
    """Writes the demo to stdout, 100 columns at most, and keeps the claims that turned out wrong."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not sys.stdout.isatty() or self._console.width > _WIDTH:
            self._console.width = _WIDTH
        self.failed: list[str] = []

    def heading(self, text: str) -> None:
        """Begin an act."""
        self._console.print()
        self._console.rule(f"[bold]{text}", align="left")

    def say(self, text: str, style: str = "") -> None:
        """Write a paragraph."""
        self._console.print(Text(plain(text), style=style))

    def blank(self) -> None:
        """Leave a line empty."""
        self._console.print()

    def log(self, lines: Iterable[str]) -> None:
        """Write lines of a log as they are, however long."""
        for line in lines:
            self._console.print(Text(plain(line)), soft_wrap=True)

    def claim(self, holds: bool, text: str, otherwise: str) -> None:
        """Say what the answers show: `text` if it holds; else `otherwise`, and the demo has failed."""
        if holds:
            self._console.print(Text.assemble(("✓ ", "bold green"), plain(text)))
        else:
            self.failed.append(otherwise)
            self._console.print(Text.assemble(("✗ ", "bold red"), plain(otherwise)))

    def profile(self, profile: Profile, title: str) -> None:
        """Show a user's strongest interests, and all that they want less of."""
        liked = [interest for interest in profile.interests if interest.weight >= 0]
        disliked = [interest for interest in profile.interests if interest.weight < 0]
        table = _table("interest", "their own words", "weight", "", "trend", "confidence")
        for interest in [*liked[:_INTERESTS], *disliked]:
            table.add_row(*_interest_cells(interest))
        self._titled(title, table)
        if len(liked) > _INTERESTS:
            rest = sum(interest.weight for interest in liked[_INTERESTS:])
            self.say(f"  and {len(liked) - _INTERESTS} smaller ones, together {rest:.2f}", "dim")

    def recommendations(
        self, title: str, rows: Iterable[tuple[Recommendation, str]], interests: dict[str, Interest]
    ) -> None:
        """Show items by their titles, each with the interest and the signal that speak for it."""
        table = _table("score", "item, and what speaks for it", "interest")
        for found, item_title in rows:
            interest = interests.get(found.interest_id)
            item = Text(plain(item_title))
            if found.evidence:
                item.append(f"\n“{plain(found.evidence[0].snippet)}”", style="dim italic")
            name = plain(interest_name(interest)) if interest else ""
            table.add_row(f"{found.score:.2f}", item, name)
        self._titled(title, table)

    def side_by_side(self, columns: tuple[str, str], rows: Iterable[tuple[Text, Text]]) -> None:
        """Show two lists next to each other."""
        table = _table(*columns)
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def matches(self, title: str, matches: Sequence[FindUsersResponse.Match]) -> None:
        """Show users who would want something."""
        table = _table("user", "interest", "similarity", "weight")
        for match in matches:
            table.add_row(match.user_id, plain(match.label), f"{match.similarity:.2f}", signed(match.weight))
        self._titled(title, table)

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[datetime], None]]:
        """Show how far the play has come. Yields a function to call with the time of each signal played.

        On a terminal a bar that names the day; elsewhere a line for each month.
        """
        if not self._console.is_terminal:
            with self._months() as played:
                yield played
            return
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda time: bar.update(task, advance=1, description=f"{time:%d %B %Y}")

    @contextmanager
    def _months(self) -> Iterator[Callable[[datetime], None]]:
        counts: dict[str, int] = {}

        def played(time: datetime) -> None:
            month = f"{time:%B %Y}"
            if month not in counts:
                told()
            counts[month] = counts.get(month, 0) + 1

        def told() -> None:
            if counts:
                month, count = list(counts.items())[-1]
                self.say(f"  {month}: {count} signals")

        yield played
        told()

    def _titled(self, title: str, table: Table) -> None:
        self._console.print()
        self._console.print(Text(plain(title), style="bold"))
        self._console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in _NUMBERS else "left",
            no_wrap=True,
            ratio=1 if column in _WIDE else None,
            max_width=_NAME if column == "interest" else None,
        )
    table.expand = bool(_WIDE & set(columns))
    return table


def _interest_cells(interest: Interest) -> tuple[Text | str, ...]:
    bar = "█" * max(1, round(abs(interest.weight) * _BAR))
    name = interest_name(interest)
    return (
        plain(name),
        plain(", ".join(word for word in interest.keywords if word != name)),
        signed(interest.weight),
        Text(bar.ljust(_BAR), style="red" if interest.weight < 0 else "green"),
        Trend.Name(interest.trend).removeprefix("TREND_").lower(),
        f"{interest.confidence:.0%}",
    )


def signed(weight: float) -> str:
    """Write a weight with its sign."""
    return f"{weight:+.2f}".replace("-", "−")
