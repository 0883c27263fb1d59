"""How much the record held when a person chose which mix is live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the count; of choices made before it isn't known."""
    op.add_column("mixes", sa.Column("chosen_count", sa.BigInteger(), nullable=True))
