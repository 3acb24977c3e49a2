"""Make the tables."""

import sqlalchemy as sa
from alembic import op

from narthex_operator.db.base import Instant

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('alerts',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('fingerprint', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=256), nullable=False),
    sa.Column('severity', sa.String(length=64), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('node_name', sa.String(length=256), nullable=False),
    sa.Column('instance', sa.String(length=256), nullable=False),
    sa.Column('labels', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('annotations', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('generator_url', sa.Text(), nullable=False),
    sa.Column('started_at', Instant(), nullable=False),
    sa.Column('ended_at', Instant(), nullable=True),
    sa.Column('first_seen_at', Instant(), nullable=False),
    sa.Column('last_seen_at', Instant(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alerts')),
    sa.UniqueConstraint('fingerprint', 'started_at', name=op.f('uq_alerts_fingerprint_started_at'))
    )
    with op.batch_alter_table('alerts', schema=None) as batch_op:
        batch_op.create_index('ix_alerts_node_name_started_at', ['node_name', 'started_at'], unique=False)
        batch_op.create_index('ix_alerts_started_at', ['started_at'], unique=False)

    op.create_table('audit',
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('at', Instant(), nullable=False),
    sa.Column('event', sa.String(length=64), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('actor_name', sa.String(length=128), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('node', sa.String(length=63), nullable=False),
    sa.Column('node_name', sa.String(length=63), nullable=False),
    sa.Column('resource', sa.String(length=1024), nullable=False),
    sa.Column('run', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('outcome', sa.String(length=256), nullable=False),
    sa.Column('details', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('prev', sa.String(length=64), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_audit'))
    )
    with op.batch_alter_table('audit', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_audit_at'), ['at'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_event'), ['event'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_node'), ['node'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_run'), ['run'], unique=False)

    op.create_table('audit_checkpoints',
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('head', sa.String(length=64), nullable=False),
    sa.Column('at', Instant(), nullable=False),
    sa.Column('signature', sa.String(length=256), nullable=False),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_audit_checkpoints'))
    )
    op.create_table('nodes',
    sa.Column('id', sa.String(length=63), nullable=False),
    sa.Column('name', sa.String(length=63), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('group_name', sa.String(length=63), nullable=False),
    sa.Column('added_at', Instant(), nullable=False),
    sa.Column('enrolled_at', Instant(), nullable=True),
    sa.Column('approved_at', Instant(), nullable=True),
    sa.Column('removed_at', Instant(), nullable=True),
    sa.Column('locked_reason', sa.String(length=200), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('csr_hash', sa.String(length=64), nullable=False),
    sa.Column('certificate', sa.Text(), nullable=False),
    sa.Column('certificate_fingerprint', sa.String(length=64), nullable=False),
    sa.Column('previous_fingerprint', sa.String(length=64), nullable=False),
    sa.Column('certificate_not_after', Instant(), nullable=True),
    sa.Column('fingerprint', sa.String(length=200), nullable=False),
    sa.Column('actor_instance', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_nodes'))
    )
    with op.batch_alter_table('nodes', schema=None) as batch_op:
        batch_op.create_index('uq_nodes_live_name', ['name'], unique=True, sqlite_where=sa.text('removed_at IS NULL'), postgresql_where=sa.text('removed_at IS NULL'))

    op.create_table('sign_in_lanes',
    sa.Column('lane', sa.String(length=160), nullable=False),
    sa.Column('failures', sa.Double(), nullable=False),
    sa.Column('changed_at', Instant(), nullable=False),
    sa.Column('next_at', Instant(), nullable=False),
    sa.PrimaryKeyConstraint('lane', name=op.f('pk_sign_in_lanes'))
    )
    with op.batch_alter_table('sign_in_lanes', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_sign_in_lanes_changed_at'), ['changed_at'], unique=False)

    op.create_table('users',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('password_hash', sa.String(length=128), nullable=False),
    sa.Column('must_change_password', sa.Boolean(), nullable=False),
    sa.Column('disabled', sa.Boolean(), nullable=False),
    sa.Column('language', sa.String(length=8), nullable=False),
    sa.Column('theme', sa.String(length=16), nullable=False),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('password_changed_at', Instant(), nullable=False),
    sa.Column('last_sign_in_at', Instant(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_users')),
    sa.UniqueConstraint('name', name=op.f('uq_users_name'))
    )
    op.create_table('api_tokens',
    sa.Column('id', sa.String(length=16), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('secret_hash', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=True),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('expires_at', Instant(), nullable=False),
    sa.Column('last_used_at', Instant(), nullable=True),
    sa.Column('revoked_at', Instant(), nullable=True),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_api_tokens_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_tokens'))
    )
    op.create_table('join_tokens',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('node_id', sa.String(length=63), nullable=False),
    sa.Column('secret_hash', sa.String(length=64), nullable=False),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('expires_at', Instant(), nullable=False),
    sa.Column('used_at', Instant(), nullable=True),
    sa.Column('csr_hash', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['node_id'], ['nodes.id'], name=op.f('fk_join_tokens_node_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_join_tokens'))
    )
    with op.batch_alter_table('join_tokens', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_join_tokens_node_id'), ['node_id'], unique=False)

    op.create_table('known_sources',
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('last_seen_at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_known_sources_user_id')),
    sa.PrimaryKeyConstraint('user_id', 'source', name=op.f('pk_known_sources'))
    )
    op.create_table('runs',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('node_id', sa.String(length=63), nullable=False),
    sa.Column('node_name', sa.String(length=63), nullable=False),
    sa.Column('action', sa.String(length=128), nullable=False),
    sa.Column('title', sa.String(length=256), nullable=False),
    sa.Column('resource', sa.String(length=1024), nullable=False),
    sa.Column('danger', sa.String(length=16), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('actor_name', sa.String(length=128), nullable=False),
    sa.Column('session', sa.String(length=64), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('params', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('plan_digest', sa.String(length=64), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('body_sha256', sa.String(length=64), nullable=False),
    sa.Column('instance', sa.String(length=64), nullable=False),
    sa.Column('steps', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.Column('hint', sa.Text(), nullable=False),
    sa.Column('after', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('inverse', sa.String(length=128), nullable=True),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('sent_at', Instant(), nullable=True),
    sa.Column('ticket_expires_at', Instant(), nullable=True),
    sa.Column('checked_at', Instant(), nullable=True),
    sa.Column('cancel_requested_at', Instant(), nullable=True),
    sa.Column('started_at', Instant(), nullable=True),
    sa.Column('finished_at', Instant(), nullable=True),
    sa.Column('told_at', Instant(), nullable=True),
    sa.ForeignKeyConstraint(['node_id'], ['nodes.id'], name=op.f('fk_runs_node_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_runs'))
    )
    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.create_index('ix_runs_created_at', ['created_at'], unique=False)
        batch_op.create_index('ix_runs_node_id_created_at', ['node_id', 'created_at'], unique=False)
        batch_op.create_index('ix_runs_state', ['state'], unique=False)

    op.create_table('sessions',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('token_hash', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('csrf', sa.String(length=64), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('user_agent', sa.String(length=256), nullable=False),
    sa.Column('created_at', Instant(), nullable=False),
    sa.Column('last_seen_at', Instant(), nullable=False),
    sa.Column('expires_at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_sessions_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sessions')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_sessions_token_hash'))
    )
    with op.batch_alter_table('sessions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_sessions_user_id'), ['user_id'], unique=False)
