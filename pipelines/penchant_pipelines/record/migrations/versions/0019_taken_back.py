"""Words that were taken back are not replayed, and words about an interest tell whether it was liked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Of words from before neither is known: they go on as they did."""
    op.add_column("steerings", sa.Column("sign", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("steerings", sa.Column("taken_back", sa.BigInteger(), nullable=True))
