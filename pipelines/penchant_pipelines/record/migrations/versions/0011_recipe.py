"""By which recipe the interests of an index were made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the digest; of those of before it isn't known, so that all are built anew once."""
    op.add_column("generations", sa.Column("recipe", sa.String(), nullable=False, server_default=sa.text("''")))
