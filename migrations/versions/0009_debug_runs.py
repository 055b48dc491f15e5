"""Runs of the debugger.

Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "debug_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("a", sa.String(), nullable=False),
        sa.Column("b", sa.String(), nullable=True),
        sa.Column("input", sa.String(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("edits", sa.JSON(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_debug_runs_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_debug_runs")),
    )
    with op.batch_alter_table("debug_runs", schema=None) as batch_op:
        batch_op.create_index("ix_debug_runs_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_debug_runs_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_debug_runs_parent_id", ["parent_id"], unique=False)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("debug_runs", schema=None) as batch_op:
        batch_op.drop_index("ix_debug_runs_parent_id")
        batch_op.drop_index("ix_debug_runs_expires_at")
        batch_op.drop_index("ix_debug_runs_created_at")
    op.drop_table("debug_runs")
