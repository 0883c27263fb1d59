"""Posts without a rating keep the one that is inferred from their text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; posts that were captured before count as they did."""
    op.add_column("signals", sa.Column("inferred_rating", sa.Float(), nullable=True))
