"""Lineage, evidence, verdict and signed manifest of versions.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_VERSIONS = sa.table("versions", sa.column("gate_version", sa.String()))
_GATE_OF_BEFORE = "0"
"""The gate that let in what is there already; the present one judges it again."""


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("versions") as batch_op:
        batch_op.add_column(sa.Column("lineage", sa.JSON(), server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("evidence_digest", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("gate_version", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("verdict", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("manifest", sa.JSON(), nullable=True))
        batch_op.create_foreign_key(
            op.f("fk_versions_evidence_digest"), "artifacts", ["evidence_digest"], ["digest"]
        )
        batch_op.create_index("ix_versions_evidence_digest", ["evidence_digest"], unique=False)
        batch_op.create_index("ix_versions_parent_id", ["parent_id"], unique=False)
    op.execute(sa.update(_VERSIONS).values(gate_version=_GATE_OF_BEFORE))


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("versions") as batch_op:
        batch_op.drop_index("ix_versions_parent_id")
        batch_op.drop_index("ix_versions_evidence_digest")
        batch_op.drop_constraint(op.f("fk_versions_evidence_digest"), type_="foreignkey")
        batch_op.drop_column("manifest")
        batch_op.drop_column("verdict")
        batch_op.drop_column("gate_version")
        batch_op.drop_column("evidence_digest")
        batch_op.drop_column("lineage")
