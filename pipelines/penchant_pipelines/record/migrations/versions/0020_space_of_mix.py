"""A mix is told by whose vectors it was learnt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Of mixes from before it isn't known: one is learnt anew, unless somebody chose which is live."""
    op.add_column("mixes", sa.Column("space", sa.Integer(), nullable=True))
