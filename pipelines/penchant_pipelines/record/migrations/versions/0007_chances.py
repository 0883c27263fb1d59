"""How a mix's scores read as chances."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; mixes of before tell no chances until one is learnt anew."""
    op.add_column("mixes", sa.Column("chance", sa.Text(), nullable=True))
