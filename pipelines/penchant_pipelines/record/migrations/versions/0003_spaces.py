"""Vectors and profiles are kept for each embedding space apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Move what there is into the tables of the one space that was live."""
    _spaces()
    _generations()
    op.create_table(
        "signal_vectors",
        sa.Column("seq", KEY, nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["seq"], ["signals.seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", "space"),
    )
    op.create_table(
        "item_vectors",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("item_id", "space"),
    )
    op.create_table(
        "steering_vectors",
        sa.Column("seq", KEY, nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["seq"], ["steerings.seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", "space"),
    )
    op.create_table(
        "profiles",
        sa.Column("user_key", KEY, nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("profile", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["user_key"], ["users.key"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_key", "space"),
    )
    op.create_table(
        "experiments",
        sa.Column("seq", KEY, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("control_space_id", sa.String(), nullable=False),
        sa.Column("trial_space_id", sa.String(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("name"),
    )
    for target, source, columns in (
        ("signal_vectors (seq, space, vector)", "signals", "t.seq, spaces.key, t.vector"),
        ("item_vectors (item_id, space, vector)", "items", "t.id, spaces.key, t.vector"),
        ("steering_vectors (seq, space, vector)", "steerings", "t.seq, spaces.key, t.vector"),
        ("profiles (user_key, space, recipe, profile)", "users", "t.key, spaces.key, t.recipe, t.profile"),
    ):
        op.execute(
            f"INSERT INTO {target} SELECT {columns} FROM {source} AS t, spaces WHERE spaces.state = 'live'"  # noqa: S608 - names from above
        )
    # Not alembic's batches: they drop and rename whole tables that others refer to.
    for table, column in (
        ("signals", "vector"),
        ("items", "vector"),
        ("steerings", "vector"),
        ("users", "recipe"),
        ("users", "profile"),
    ):
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def _spaces() -> None:
    op.rename_table("spaces", "old_spaces")
    op.create_table(
        "spaces",
        sa.Column("key", KEY, nullable=False),
        sa.Column("space_id", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("similarity", sa.Float(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("switches", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_autoincrement=True,
    )
    # There was one adapter at most, and the settings named it: it is the encoder of the settings still.
    op.execute(
        "INSERT INTO spaces (space_id, adapter_id, dimensions, similarity, state, switches) "
        "SELECT space_id, '', dimensions, similarity, 'live', 0 FROM old_spaces WHERE live"
    )
    op.drop_table("old_spaces")


def _generations() -> None:
    op.rename_table("generations", "old_generations")
    op.create_table(
        "generations",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute(
        "INSERT INTO generations (name, space, cursor, live) SELECT g.name, spaces.key, g.cursor, g.live "
        "FROM old_generations AS g JOIN spaces ON spaces.space_id = g.space_id"
    )
    op.drop_table("old_generations")
