"""Files of uploads get rows of their own, with how far each has arrived; uploads by reference.

Revision 0003, after 0002.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FILES = sa.table(
    "upload_files",
    sa.column("upload_id", sa.String()),
    sa.column("position", sa.BigInteger()),
    sa.column("path", sa.String()),
    sa.column("size_bytes", sa.BigInteger()),
    sa.column("received_bytes", sa.BigInteger()),
    sa.column("sha256", sa.String()),
)
_UPLOADS = sa.table("uploads", sa.column("id", sa.String()), sa.column("files", sa.JSON()))


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "upload_files",
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=True),
        sa.Column("transfer_id", sa.String(), nullable=True),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("declared_sha256", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name=op.f("fk_upload_files_upload_id")),
        sa.PrimaryKeyConstraint("upload_id", "position", name=op.f("pk_upload_files")),
        sa.UniqueConstraint("transfer_id", name=op.f("uq_upload_files_transfer_id")),
        sa.UniqueConstraint("upload_id", "path", name=op.f("uq_upload_files_upload_id_path")),
    )
    _move_into_rows()
    with op.batch_alter_table("uploads") as batch_op:
        batch_op.drop_column("files")
        batch_op.add_column(sa.Column("reference", sa.String(), nullable=True))


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("uploads") as batch_op:
        batch_op.drop_column("reference")
        batch_op.add_column(sa.Column("files", sa.JSON(), server_default="[]", nullable=False))
    _move_into_json()
    op.drop_table("upload_files")


def _move_into_rows() -> None:
    connection = op.get_bind()
    for upload_id, files in connection.execute(sa.select(_UPLOADS.c.id, _UPLOADS.c.files)).all():
        rows = [
            {"upload_id": upload_id, "position": position, **_whole_or_nothing(file)}
            for position, file in enumerate(json.loads(files) if isinstance(files, str) else files)
        ]
        if rows:
            connection.execute(sa.insert(_FILES), rows)


def _whole_or_nothing(file: dict[str, object]) -> dict[str, object]:
    """A file as it was declared; what had arrived of an unfinished one could not be gone on with."""
    return {
        "path": file["path"],
        "size_bytes": file["size_bytes"],
        "received_bytes": file["received_bytes"] if file["sha256"] else 0,
        "sha256": file["sha256"],
    }


def _move_into_json() -> None:
    connection = op.get_bind()
    files: dict[str, list[dict[str, object]]] = {}
    for row in connection.execute(sa.select(_FILES).order_by(_FILES.c.upload_id, _FILES.c.position)):
        files.setdefault(row.upload_id, []).append(_whole_or_nothing(dict(row._mapping)))
    for upload_id, own in files.items():
        connection.execute(sa.update(_UPLOADS).where(_UPLOADS.c.id == upload_id).values(files=own))
