"""How sources of recommendations are mixed, and the words of items that one of them reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and the column; an item's words come with its next upsert."""
    op.add_column("items", sa.Column("words", sa.Text(), nullable=True))
    op.create_table(
        "mixes",
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("favour_count", sa.BigInteger(), nullable=False),
        sa.Column("lesson_count", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Float(), nullable=False),
        sa.Column("quality_before", sa.Float(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
    )
