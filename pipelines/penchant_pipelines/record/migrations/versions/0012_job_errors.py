"""Of which kind the error of a job was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the kind; of jobs of before it isn't known."""
    op.add_column("jobs", sa.Column("error_kind", sa.String(), nullable=False, server_default=sa.text("''")))
