# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run by Alembic: apply the migrations on the connection that `migrate` was given."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
