"""Rollouts, their evidence, golden sets, freeze windows and webhooks.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "freeze_windows",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("starts_at", sa.Double(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=False),
        sa.Column("weekly", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freeze_windows")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "golden_sets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_golden_sets_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_sets")),
        sa.UniqueConstraint("model_id", "digest", name=op.f("uq_golden_sets_model_id_digest")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.create_index("ix_webhook_deliveries_state_next_at", ["state", "next_at"], unique=False)
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("stable_version_id", sa.String(), nullable=False),
        sa.Column("candidate_version_id", sa.String(), nullable=False),
        sa.Column("stable_handler", sa.String(), nullable=False),
        sa.Column("candidate_handler", sa.String(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("step_index", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("mirror", sa.Double(), nullable=False),
        sa.Column("holds", sa.JSON(), nullable=False),
        sa.Column("entered_at", sa.Double(), nullable=False),
        sa.Column("baked_s", sa.Double(), nullable=False),
        sa.Column("step_requests", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("warm_until", sa.Double(), nullable=True),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("reason_code", sa.String(), nullable=True),
        sa.Column("full", sa.Boolean(), nullable=False),
        sa.Column("gate_job_id", sa.String(), nullable=True),
        sa.Column("gates", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["candidate_version_id"], ["versions.id"], name=op.f("fk_rollouts_candidate_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["stable_version_id"], ["versions.id"], name=op.f("fk_rollouts_stable_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        batch_op.create_index("ix_rollouts_endpoint_created_at", ["endpoint", "created_at"], unique=False)
        batch_op.create_index("ix_rollouts_state", ["state"], unique=False)
    op.create_table(
        "rollout_disagreements",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("distance", sa.Double(), nullable=False),
        sa.Column("inputs", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_disagreements_rollout_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_disagreements")),
    )
    with op.batch_alter_table("rollout_disagreements", schema=None) as batch_op:
        batch_op.create_index("ix_rollout_disagreements_rollout_id", ["rollout_id"], unique=False)
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("cursor_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("captures", sa.JSON(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_evidence_rollout_id")),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollout_evidence")),
    )
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rollout_policy", sa.JSON(), server_default="{}", nullable=False))


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.drop_column("rollout_policy")
    op.drop_table("rollout_evidence")
    with op.batch_alter_table("rollout_disagreements", schema=None) as batch_op:
        batch_op.drop_index("ix_rollout_disagreements_rollout_id")
    op.drop_table("rollout_disagreements")
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        batch_op.drop_index("ix_rollouts_state")
        batch_op.drop_index("ix_rollouts_endpoint_created_at")
    op.drop_table("rollouts")
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.drop_index("ix_webhook_deliveries_state_next_at")
    op.drop_table("webhook_deliveries")
    op.drop_table("golden_sets")
    op.drop_table("webhooks")
    op.drop_table("freeze_windows")
