"""Witness the nodes."""

import sqlalchemy as sa
from alembic import op

from narthex_operator.db.base import Instant

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('node_audit_heads',
    sa.Column('node', sa.String(length=63), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('head', sa.String(length=64), nullable=False),
    sa.Column('at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['node'], ['nodes.id'], name=op.f('fk_node_audit_heads_node')),
    sa.PrimaryKeyConstraint('node', 'seq', name=op.f('pk_node_audit_heads'))
    )
    op.create_table('node_audit_problems',
    sa.Column('node', sa.String(length=63), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('at', Instant(), nullable=False),
    sa.ForeignKeyConstraint(['node'], ['nodes.id'], name=op.f('fk_node_audit_problems_node')),
    sa.PrimaryKeyConstraint('node', 'kind', name=op.f('pk_node_audit_problems'))
    )
