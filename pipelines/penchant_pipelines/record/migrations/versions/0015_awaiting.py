"""Signals that wait for their items, at hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the index; what was left unread in a space, since its item was away, waits for it from now on."""
    op.execute(
        "UPDATE signals SET awaits_item = 1 WHERE item_id != '' AND item_id NOT IN (SELECT id FROM items) "
        "AND seq IN (SELECT seq FROM signal_vectors WHERE vector IS NULL)"
    )
    op.create_index(
        "signals_awaiting_item", "signals", ["item_id", "user_key"], sqlite_where=sa.text("awaits_item = 1")
    )
