"""The network that bare weights belong to, as a person names it.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column("uploads", sa.Column("architecture", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("uploads") as batch_op:
        batch_op.drop_column("architecture")
