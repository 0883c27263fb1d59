"""What a generative model wrote about profiles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table; whether a user's summary is due follows from it."""
    op.create_table(
        "summaries",
        sa.Column(
            "user_key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("users.key", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("signal_count", sa.BigInteger(), nullable=False),
        sa.Column("steering_count", sa.BigInteger(), nullable=False),
        sa.Column("interests", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
