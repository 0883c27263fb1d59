"""Steering knows the interest that it names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the name; older words keep to the interest nearest to their vector."""
    column = sa.Column("interest_id", sa.String(), nullable=False, server_default=sa.text("''"))
    op.add_column("steerings", column)
