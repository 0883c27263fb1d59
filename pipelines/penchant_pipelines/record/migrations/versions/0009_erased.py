"""Generations of the index that hold vectors of erased users in their files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the mark; whether one of before holds such vectors isn't known, so that all are built anew once."""
    op.add_column("generations", sa.Column("holds_erased", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE generations SET holds_erased = 1")
