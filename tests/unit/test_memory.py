from __future__ import annotations

import gc
import weakref

from penchant_pipelines.memory import settle


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_stays_is_left_alone_until_it_is_looked_at_again() -> None:
    circle = Circle()
    there = weakref.ref(circle)
    settle()
    assert gc.get_freeze_count() > 0
    del circle
    gc.collect()
    assert there() is not None
    settle()
    assert there() is None
