"""Erasures after which the file was written anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the mark; after those of before the file never was."""
    op.add_column("receipts", sa.Column("purged", sa.Boolean(), nullable=False, server_default=sa.false()))
