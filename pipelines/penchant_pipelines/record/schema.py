"""Tables of the record. Changes go through `migrations/`; a test holds the two against each other.

Times are integer microseconds since 1970 (UTC). Vectors are float32 in native order, (d,).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite makes only INTEGER PRIMARY KEY an alias of the row id; elsewhere keys are 64 bits wide.
Key = BigInteger().with_variant(Integer, "sqlite")

users = Table(
    "users",
    metadata,
    # A random number: what the index holds names nobody once this row is gone.
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("user_id", String, nullable=False, unique=True),
    Column("version", BigInteger, nullable=False),
    Column("signal_count", BigInteger, nullable=False),
    # (time, id) of the last event in the profile; whatever comes before it calls for a replay.
    Column("latest_time", BigInteger, nullable=False),
    Column("latest_id", String, nullable=False),
    # Digest of the recipe that made the profile; another one calls for a replay.
    Column("recipe", String, nullable=False),
    Column("profile", LargeBinary, nullable=False),
)

signals = Table(
    "signals",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("user_key", ForeignKey("users.key"), nullable=False),
    Column("time", BigInteger, nullable=False),
    # Digest of the content as it was sent: tells a resend from a conflict.
    Column("digest", LargeBinary, nullable=False),
    Column("action", Integer),  # null for posts
    Column("item_id", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("given_language", String, nullable=False),
    Column("rating", Float),
    Column("value", Float),
    Column("attribution_token", String, nullable=False),
    Column("context", Text, nullable=False),  # JSON object
    # What was made of it.
    Column("language", String, nullable=False),
    Column("terms", Text, nullable=False),  # JSON list
    Column("vector", LargeBinary),
    Column("awaits_item", Boolean, nullable=False),
    Column("undone", Boolean, nullable=False),
    Index("signals_by_user", "user_key", "time", "id"),
    Index("signals_by_item", "item_id", "user_key"),
)

items = Table(
    "items",
    metadata,
    Column("id", String, primary_key=True),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("categories", Text, nullable=False),  # JSON list
    Column("create_time", BigInteger),
    Column("attributes", Text, nullable=False),  # JSON object
    Column("hidden", Boolean, nullable=False),
    Column("language", String, nullable=False),
    Column("terms", Text, nullable=False),  # JSON list
    Column("vector", LargeBinary, nullable=False),
)

steerings = Table(
    "steerings",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("user_key", ForeignKey("users.key"), nullable=False, index=True),
    Column("time", BigInteger, nullable=False),
    Column("topic", Text, nullable=False),
    # The interest that was named, empty where a topic was.
    Column("interest_id", String, nullable=False, server_default=text("''")),
    Column("terms", Text, nullable=False),  # JSON list
    Column("vector", LargeBinary, nullable=False),
    Column("muted", Boolean, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("bias", Float, nullable=False),
)

merges = Table(
    "merges",
    metadata,
    # Lets a repeated MergeUsers find that it was done.
    Column("from_user_id", String, primary_key=True),
    Column("into_key", ForeignKey("users.key"), nullable=False, index=True),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", String, primary_key=True),
    Column("time", BigInteger, nullable=False),
    # Keyed digest of the user id: proves to whoever knows the id, lists nobody to whoever does not.
    Column("user_digest", String, nullable=False, index=True),
    Column("signals_deleted", BigInteger, nullable=False),
    Column("vectors_deleted", BigInteger, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("kind", String, nullable=False),  # "item" or "user"
    Column("key", String, nullable=False),
    sqlite_autoincrement=True,
)

generations = Table(
    "generations",
    metadata,
    Column("name", String, primary_key=True),
    Column("space_id", String, nullable=False),
    # Last outbox row that the index has taken.
    Column("cursor", BigInteger, nullable=False),
    Column("live", Boolean, nullable=False),
)

indexed_interests = Table(
    "indexed_interests",
    metadata,
    Column("generation", String, primary_key=True),
    Column("user_key", BigInteger, primary_key=True),
    Column("interest_id", String, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float16: only tells how far the interest has moved
)

spaces = Table(
    "spaces",
    metadata,
    Column("space_id", String, primary_key=True),
    Column("dimensions", Integer, nullable=False),
    Column("similarity", Float, nullable=False),
    Column("live", Boolean, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("state", Integer, nullable=False),
    Column("done_count", BigInteger, nullable=False),
    Column("total_count", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
