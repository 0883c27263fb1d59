"""How sources are weighed for users who have only written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column; mixes of before weigh alike for all."""
    op.add_column("mixes", sa.Column("writer_weights", sa.Text(), nullable=True))
