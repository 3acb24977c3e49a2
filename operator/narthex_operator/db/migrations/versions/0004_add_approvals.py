"""Add approvals, confirmations and the plans that were shown."""

import sqlalchemy as sa
from alembic import op

from narthex_operator.db.base import Instant

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('nodes', schema=None) as batch_op:
        batch_op.add_column(sa.Column('ceiling', sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False))

    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('plan', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('undo', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('approvals_wanted', sa.Integer(), server_default=sa.text('0'), nullable=False))
        batch_op.add_column(sa.Column('approve_until', Instant(), nullable=True))
        batch_op.add_column(sa.Column('approved_at', Instant(), nullable=True))
        batch_op.add_column(sa.Column('confirm_seconds', sa.Double(), server_default=sa.text('0'), nullable=False))
        batch_op.add_column(sa.Column('confirm_until', Instant(), nullable=True))
        batch_op.add_column(sa.Column('ssh_open', sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column('probes', sa.JSON(none_as_null=True), nullable=True))

    op.create_table('approvals',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.String(length=36), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('user_name', sa.String(length=64), nullable=False),
    sa.Column('at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_approvals_run_id')),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_approvals_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_approvals')),
    sa.UniqueConstraint('run_id', 'user_id', name=op.f('uq_approvals_run_id_user_id'))
    )
