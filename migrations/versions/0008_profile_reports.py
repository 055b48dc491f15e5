"""Reports of profiles.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "profile_reports",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_profile_reports_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile_reports")),
        sa.UniqueConstraint("job_id", name=op.f("uq_profile_reports_job_id")),
    )
    with op.batch_alter_table("profile_reports", schema=None) as batch_op:
        batch_op.create_index("ix_profile_reports_ref", ["ref"], unique=False)
        batch_op.create_index("ix_profile_reports_created_at", ["created_at"], unique=False)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("profile_reports", schema=None) as batch_op:
        batch_op.drop_index("ix_profile_reports_created_at")
        batch_op.drop_index("ix_profile_reports_ref")
    op.drop_table("profile_reports")
