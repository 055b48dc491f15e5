"""Alembic's environment: runs on the connection and inside the transaction that
control_plane.registry.migrate opened, so that an upgrade happens whole or not at all."""

from alembic import context

from control_plane.registry.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
