"""Tables of the record. Changes go through `migrations/`; a test holds the two against each other.

What users and backends sent is free of embedding spaces; what an encoder made of it is kept for each space apart.
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
    false,
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
    Column("inferred_rating", Float),  # of a post without a rating, where its text is sure
    Column("value", Float),
    Column("attribution_token", String, nullable=False),
    Column("context", Text, nullable=False),  # JSON object
    # What was made of it.
    Column("language", String, nullable=False),
    Column("terms", Text, nullable=False),  # JSON list
    # Whether it has yet to be read with its item, in some space: the item never came, or was away when that was filled.
    Column("awaits_item", Boolean, nullable=False),
    Column("undone", Boolean, nullable=False),
    Index("signals_by_user", "user_key", "time", "id"),
    Index("signals_by_item", "item_id", "user_key"),
    Index("signals_awaiting_item", "item_id", "user_key", sqlite_where=text("awaits_item = 1")),
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
    Column("words", Text),  # JSON list; null in rows that were written before words were kept
)

mixes = Table(
    "mixes",
    metadata,
    Column("seq", Key, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("create_time", BigInteger, nullable=False),
    Column("weights", Text, nullable=False),  # JSON object: weight by source
    Column("writer_weights", Text),  # for users who have only written; null in old mixes
    # How many signals in favour of items the record held when it was learnt.
    Column("favour_count", BigInteger, nullable=False),
    Column("lesson_count", BigInteger, nullable=False),
    # NDCG@10 on the latest lessons, and of what was live before on the same.
    Column("quality", Float, nullable=False),
    Column("quality_before", Float, nullable=False),
    Column("chance", Text),  # JSON array: base and slope of the curve from scores to chances, if any
    Column("live", Boolean, nullable=False),
    # How many favours the record held when somebody last chose what is live; of mixes learnt since then null.
    Column("chosen_count", BigInteger),
    Column("space", Integer),  # whose vectors it was learnt by; null in old mixes
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
    Column("sign", Integer, nullable=False, server_default=text("0")),  # of the interest; 0: not known
    # When it was taken back, if it was; a word that takes all back that was said of something does nothing more.
    Column("taken_back", BigInteger),
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
    # Whether the file was written anew since: till then its pages may hold parts of what was erased.
    Column("purged", Boolean, nullable=False, server_default=false()),
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
    Column("space", Integer, nullable=False),
    # Last outbox row that the index has taken.
    Column("cursor", BigInteger, nullable=False),
    Column("live", Boolean, nullable=False),
    # Vectors of somebody who was erased since are in its files, if deleted: it is to be replaced.
    Column("holds_erased", Boolean, nullable=False, server_default=false()),
    # Digest of the recipe that made its interests; one of another recipe is to be replaced.
    Column("recipe", String, nullable=False, server_default=text("''")),
    # How many of its vectors were deleted: they slow it down, and stay in its files.
    Column("items_deleted", BigInteger, nullable=False, server_default=text("0")),
    Column("interests_deleted", BigInteger, nullable=False, server_default=text("0")),
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
    # Never given twice: what is left of a space that is gone must not be taken for another's.
    Column("key", Key, primary_key=True),
    Column("space_id", String, nullable=False),
    # Folder in the adapter directory; empty for the encoder that the settings name.
    Column("adapter_id", String, nullable=False),
    Column("dimensions", Integer, nullable=False),
    # θ and the middle, float32 (dimensions,), as measured; null until they are.
    Column("similarity", Float),
    Column("middle", LargeBinary),
    Column("state", String, nullable=False),  # "building", "standby", "live" or "dropping"
    # While it is being built: the job that does it, and whether readers and writers switch to it then.
    Column("job_id", String),
    Column("switches", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

# A space is complete when it has a row here for every signal, item and steering; the vector is null where
# there was nothing to read. Rows go with what they were made of.
signal_vectors = Table(
    "signal_vectors",
    metadata,
    Column("seq", ForeignKey("signals.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("space", Integer, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary),
)

item_vectors = Table(
    "item_vectors",
    metadata,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("space", Integer, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
)

steering_vectors = Table(
    "steering_vectors",
    metadata,
    Column("seq", ForeignKey("steerings.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("space", Integer, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary),
)

profiles = Table(
    "profiles",
    metadata,
    Column("user_key", ForeignKey("users.key", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("space", Integer, primary_key=True, autoincrement=False),
    # Digest of the recipe that made the profile; another one calls for a replay.
    Column("recipe", String, nullable=False),
    Column("profile", LargeBinary, nullable=False),
)

summaries = Table(
    "summaries",
    metadata,
    Column("user_key", ForeignKey("users.key", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # Of which profile it was made.
    Column("space", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("signal_count", BigInteger, nullable=False),
    Column("steering_count", BigInteger, nullable=False),
    Column("interests", Text, nullable=False),  # JSON list of the ids that it speaks of
    Column("time", BigInteger, nullable=False),
    Column("text", Text, nullable=False),  # empty where the model had nothing to say
)

experiments = Table(
    "experiments",
    metadata,
    Column("seq", Key, primary_key=True),
    # Also the salt by which users are told apart.
    Column("name", String, nullable=False, unique=True),
    Column("adapter_id", String, nullable=False),
    Column("share", Float, nullable=False),
    Column("control_space_id", String, nullable=False),
    Column("trial_space_id", String, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
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
    Column("error_kind", String, nullable=False, server_default=text("''")),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
