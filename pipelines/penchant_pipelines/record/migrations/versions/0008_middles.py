"""The middle of a space, from which texts are compared; what was measured without it is measured anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; indexes of before hold interests as seen from elsewhere, and are built anew."""
    op.add_column("spaces", sa.Column("middle", sa.LargeBinary(), nullable=True))
    op.execute("UPDATE generations SET live = 0")
