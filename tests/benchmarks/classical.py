# SPDX-License-Identifier: AGPL-3.0-or-later
"""The classical way, to compare with: aiohttp and PostgreSQL, one signed transfer and one commit a request.

What a web developer would write for a barter network, with the care that Écot takes where the two can be compared:
the same loop (uvloop), the same signature library, prepared statements, a pool, limits checked, durable commits. It has
no receipts, no tree, no rules beyond the credit limit, no views, and its database can be rewritten by whoever runs it.

``POST /transfers``: MessagePack ``[body, signature]``; the body is ``[id, payer, payee, amount_minor]``, signed by the
payer's key. Two forms, chosen by ``FORM``:

- ``statements``: BEGIN, two UPDATEs in the order of the accounts (so that no two transfers wait for each other for
  ever), INSERT, COMMIT: the usual one;
- ``function``: the same inside one SQL function, so that there is one round trip: the fastest that we know of which
  still commits each request by itself.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import uvloop
from aiohttp import web
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

POOL_SIZE: Final = 20
CONNECT_TRIES: Final = 100
CONNECT_PAUSE_S: Final = 0.1
LOWER_MINOR: Final = -(10**12)
SCHEMA: Final = """
CREATE TABLE accounts (id integer PRIMARY KEY, public_key bytea NOT NULL, balance_minor bigint NOT NULL DEFAULT 0,
                       lower_minor bigint NOT NULL, CHECK (balance_minor >= lower_minor)) WITH (fillfactor = 50);
CREATE TABLE transfers (id bytea PRIMARY KEY, payer integer NOT NULL, payee integer NOT NULL,
                        amount_minor bigint NOT NULL CHECK (amount_minor > 0), body bytea NOT NULL,
                        signature bytea NOT NULL, received_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON transfers (payer);
CREATE INDEX ON transfers (payee);
CREATE FUNCTION transfer(bytea, integer, integer, bigint, bytea, bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM accounts WHERE id IN ($2, $3) ORDER BY id FOR UPDATE;
  UPDATE accounts SET balance_minor = balance_minor - $4 WHERE id = $2;
  UPDATE accounts SET balance_minor = balance_minor + $4 WHERE id = $3;
  INSERT INTO transfers (id, payer, payee, amount_minor, body, signature) VALUES ($1, $2, $3, $4, $5, $6);
END $$;
"""
ADD: Final = "UPDATE accounts SET balance_minor = balance_minor + $2 WHERE id = $1"
INSERT: Final = (
    "INSERT INTO transfers (id, payer, payee, amount_minor, body, signature) VALUES ($1, $2, $3, $4, $5, $6)"
)
CALL: Final = "SELECT transfer($1, $2, $3, $4, $5, $6)"


class Transfer(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What the payer signs."""

    id: bytes
    payer: int
    payee: int
    amount_minor: int


class Signed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is posted."""

    body: bytes
    signature: bytes


_signed: Final = msgspec.msgpack.Decoder(Signed)
_transfer: Final = msgspec.msgpack.Decoder(Transfer)


class Classical:
    """The server.

    Args:
        pool: of connections.
        public_keys: account -> 32 bytes.
        is_function: use the SQL function.
    """

    def __init__(self, pool: asyncpg.Pool, public_keys: dict[int, bytes], *, is_function: bool) -> None:
        self._pool, self._public_keys = pool, public_keys
        self._record = self._call if is_function else self._transact

    async def post(self, request: web.Request) -> web.Response:
        """Record one transfer; 400 malformed or badly signed, 409 refused by the database."""
        try:
            signed = _signed.decode(await request.read())
            transfer = _transfer.decode(signed.body)
            crypto_sign_open(signed.signature + signed.body, self._public_keys[transfer.payer])
        except (msgspec.DecodeError, KeyError, BadSignatureError, ValueError):
            return web.json_response({"error": "malformed"}, status=400)
        if transfer.amount_minor < 1 or transfer.payer == transfer.payee or transfer.payee not in self._public_keys:
            return web.json_response({"error": "malformed"}, status=400)
        try:
            await self._record(transfer, signed)
        except asyncpg.IntegrityConstraintViolationError as error:
            return web.json_response({"error": type(error).__name__}, status=409)
        return web.json_response({"id": transfer.id.hex()})

    async def _transact(self, one: Transfer, signed: Signed) -> None:
        moves = sorted(((one.payer, -one.amount_minor), (one.payee, one.amount_minor)))
        async with self._pool.acquire() as connection, connection.transaction():
            for account, amount_minor in moves:
                await connection.execute(ADD, account, amount_minor)
            values = (one.id, one.payer, one.payee, one.amount_minor, signed.body, signed.signature)
            await connection.execute(INSERT, *values)

    async def _call(self, one: Transfer, signed: Signed) -> None:
        values = (one.id, one.payer, one.payee, one.amount_minor, signed.body, signed.signature)
        async with self._pool.acquire() as connection:
            await connection.fetchval(CALL, *values)

    async def count(self, _request: web.Request) -> web.Response:
        """Tell how many transfers are durable, and the sum of all balances, which is 0."""
        row = await self._pool.fetchrow(
            "SELECT (SELECT count(*) FROM transfers), (SELECT sum(balance_minor) FROM accounts)"
        )
        return web.json_response({"count": row[0], "sum_minor": int(row[1])})


async def make_schema(host: str, user: str, public_keys: Sequence[bytes]) -> None:
    """Make the tables anew, with an account for each public key (32 bytes), numbered from 0."""
    connection = await _connect(host, user)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public;" + SCHEMA)
    rows = [(number, key, 0, LOWER_MINOR) for number, key in enumerate(public_keys)]
    await connection.copy_records_to_table("accounts", records=rows)
    await connection.execute("ANALYZE")
    await connection.close()


async def _connect(host: str, user: str) -> asyncpg.Connection:
    """Connect, once the server has done with its start: its socket is there before that."""
    for _ in range(CONNECT_TRIES):
        try:
            return await asyncpg.connect(host=host, user=user, database="postgres")
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(CONNECT_PAUSE_S)
    return await asyncpg.connect(host=host, user=user, database="postgres")


async def make_app() -> web.Application:
    """Return the application, connected to the database of ``PG_HOST`` as ``PG_USER``."""
    pool = await asyncpg.create_pool(
        host=os.environ["PG_HOST"],
        user=os.environ["PG_USER"],
        database="postgres",
        min_size=POOL_SIZE,
        max_size=POOL_SIZE,
    )
    rows = await pool.fetch("SELECT id, public_key FROM accounts")
    keys = {row["id"]: row["public_key"] for row in rows}
    server = Classical(pool, keys, is_function=os.environ.get("FORM") == "function")
    app = web.Application()
    app.router.add_post("/transfers", server.post)
    app.router.add_get("/count", server.count)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
