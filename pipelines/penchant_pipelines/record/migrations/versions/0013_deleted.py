"""How much was deleted from an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the counts. An index of before holds equal vectors that hide others, so that all are built anew once."""
    for kind in ("items", "interests"):
        column = sa.Column(f"{kind}_deleted", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        op.add_column("generations", column)
    op.execute("UPDATE generations SET recipe = ''")
