"""Serving options of endpoints, health checks and measured effects of agents.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("endpoints") as batch_op:
        batch_op.add_column(sa.Column("options", sa.JSON(), server_default="{}", nullable=False))
    with op.batch_alter_table("agents") as batch_op:
        batch_op.add_column(sa.Column("health_check", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("effect", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("agents") as batch_op:
        batch_op.drop_column("effect")
        batch_op.drop_column("health_check")
    with op.batch_alter_table("endpoints") as batch_op:
        batch_op.drop_column("options")
