"""Trials of optimisation jobs.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "optimization_trials",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("follows", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("reason", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("build", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("screening", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("decision", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("version_id", sa.String(), nullable=True),
        sa.Column("registering_job_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_optimization_trials_job_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_optimization_trials_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_optimization_trials")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_optimization_trials_job_id_number")),
    )
    with op.batch_alter_table("optimization_trials", schema=None) as batch_op:
        batch_op.create_index("ix_optimization_trials_method_state", ["method", "state"], unique=False)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("optimization_trials", schema=None) as batch_op:
        batch_op.drop_index("ix_optimization_trials_method_state")
    op.drop_table("optimization_trials")
