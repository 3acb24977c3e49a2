"""Add runs over many nodes, their schedules, leases, and labels of nodes."""

import sqlalchemy as sa
from alembic import op

from narthex_operator.db.base import Instant

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('fleet_plans',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('action', sa.String(length=128), nullable=False),
    sa.Column('params', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('selector', sa.Text(), nullable=False),
    sa.Column('members', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('retry_of', sa.String(length=36), nullable=True),
    sa.Column('created_at', Instant(), nullable=False),
    sa.PrimaryKeyConstraint('digest', 'actor', name=op.f('pk_fleet_plans'))
    )
    with op.batch_alter_table('fleet_plans', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_fleet_plans_created_at'), ['created_at'], unique=False)

    op.create_table('fleet_runs',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('action', sa.String(length=128), nullable=False),
    sa.Column('title', sa.String(length=256), nullable=False),
    sa.Column('resource', sa.String(length=1024), nullable=False),
    sa.Column('danger', sa.String(length=16), nullable=False),
    sa.Column('params', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('selector', sa.Text(), nullable=False),
    sa.Column('strategy', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('plan_digest', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('actor_name', sa.String(length=128), nullable=False),
    sa.Column('session', sa.String(length=64), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('schedule_id', sa.String(length=36), nullable=True),
    sa.Column('retry_of', sa.String(length=36), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.Column('hint', sa.Text(), nullable=False),
    sa.Column('wave', sa.Integer(), nullable=False),
    sa.Column('waves', sa.Integer(), nullable=False),
    sa.Column('forgiven', sa.Integer(), nullable=False),
    sa.Column('pause_until', Instant(), nullable=True),
    sa.Column('gate_began_at', Instant(), nullable=True),
    sa.Column('gate_since', Instant(), nullable=True),
    sa.Column('gate_checked_at', Instant(), nullable=True),
    sa.Column('gate_told', sa.Text(), nullable=False),
    sa.Column('cancelled_by', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('driven_at', Instant(), nullable=False),
    sa.Column('halted_at', Instant(), nullable=True),
    sa.Column('finished_at', Instant(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_fleet_runs'))
    )
    with op.batch_alter_table('fleet_runs', schema=None) as batch_op:
        batch_op.create_index('ix_fleet_runs_created_at', ['created_at'], unique=False)
        batch_op.create_index('ix_fleet_runs_state', ['state'], unique=False)

    op.create_table('leases',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('holder', sa.String(length=64), nullable=False),
    sa.Column('term', sa.Integer(), nullable=False),
    sa.Column('expires_at', Instant(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_leases'))
    )
    op.create_table('schedules',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('cron', sa.String(length=128), nullable=False),
    sa.Column('every_seconds', sa.Integer(), nullable=True),
    sa.Column('timezone', sa.String(length=64), nullable=False),
    sa.Column('misfire', sa.String(length=16), nullable=False),
    sa.Column('grace_seconds', sa.Integer(), nullable=False),
    sa.Column('action', sa.String(length=128), nullable=False),
    sa.Column('params', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('selector', sa.Text(), nullable=False),
    sa.Column('strategy', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('owner', sa.String(length=128), nullable=False),
    sa.Column('owner_name', sa.String(length=128), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.Column('paused_reason', sa.Text(), nullable=False),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('next_at', Instant(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_schedules')),
    sa.UniqueConstraint('name', name=op.f('uq_schedules_name'))
    )
    with op.batch_alter_table('schedules', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_schedules_next_at'), ['next_at'], unique=False)

    op.create_table('fleet_members',
    sa.Column('fleet_run_id', sa.String(length=36), nullable=False),
    sa.Column('node_id', sa.String(length=63), nullable=False),
    sa.Column('node_name', sa.String(length=63), nullable=False),
    sa.Column('wave', sa.Integer(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.String(length=36), nullable=False),
    sa.Column('plan_digest', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.Column('hint', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['fleet_run_id'], ['fleet_runs.id'], name=op.f('fk_fleet_members_fleet_run_id')),
    sa.ForeignKeyConstraint(['node_id'], ['nodes.id'], name=op.f('fk_fleet_members_node_id')),
    sa.PrimaryKeyConstraint('fleet_run_id', 'node_id', name=op.f('pk_fleet_members')),
    sa.UniqueConstraint('run_id', name=op.f('uq_fleet_members_run_id'))
    )
    op.create_table('schedule_slots',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('schedule_id', sa.String(length=36), nullable=False),
    sa.Column('slot', Instant(), nullable=False),
    sa.Column('fleet_run_id', sa.String(length=36), nullable=False),
    sa.Column('holder', sa.String(length=64), nullable=False),
    sa.Column('outcome', sa.String(length=16), nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.Column('taken_at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['schedule_id'], ['schedules.id'], name=op.f('fk_schedule_slots_schedule_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_schedule_slots')),
    sa.UniqueConstraint('schedule_id', 'slot', name=op.f('uq_schedule_slots_schedule_id_slot'))
    )
    with op.batch_alter_table('nodes', schema=None) as batch_op:
        batch_op.add_column(sa.Column('labels', sa.JSON(none_as_null=True), server_default='{}', nullable=False))

    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('fleet_run_id', sa.String(length=36), nullable=True))
        batch_op.create_index('ix_runs_fleet_run_id', ['fleet_run_id'], unique=False)
