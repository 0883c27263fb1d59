"""Interests noted for a generation of the index that was forgotten by then: no erasure reached them."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Delete them, and have the record's file written anew where somebody of theirs may have been erased."""
    op.execute(
        "UPDATE receipts SET purged = 0 WHERE rowid = (SELECT max(rowid) FROM receipts) AND EXISTS "
        "(SELECT 1 FROM indexed_interests WHERE generation NOT IN (SELECT name FROM generations))"
    )
    op.execute("DELETE FROM indexed_interests WHERE generation NOT IN (SELECT name FROM generations)")
