"""Run by alembic: applies migrations on the connection that `Record` hands over."""

from alembic import context

from penchant_pipelines.record.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
