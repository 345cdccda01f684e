"""`python -m interpedia_shared.accounts create-owner`: the first account and its key."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sqlalchemy import select

from interpedia_shared.auth import SCOPE_ADMIN, SCOPE_PUBLISH, new_key
from interpedia_shared.db.models import Account, APIKey
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.settings import load_database_settings

OWNER = "owner"


async def create_owner(session: WriteSession) -> str | None:
    """Make the owner's account with one key of all scopes. The key, or None when it exists."""
    exists = await session.scalar(select(Account.id).where(Account.name == OWNER))
    if exists is not None:
        return None
    return await _add_key(session, Account(name=OWNER))


async def rotate_owner_key(session: WriteSession) -> str:
    """Make a further key for the owner, for when the first one was lost."""
    account = await session.scalar(select(Account).where(Account.name == OWNER))
    return await _add_key(session, account or Account(name=OWNER))


async def _add_key(session: WriteSession, account: Account) -> str:
    key, prefix, digest = new_key()
    session.add(account)
    await session.flush()
    session.add(
        APIKey(account_id=account.id, prefix=prefix, sha256=digest, scopes=[SCOPE_PUBLISH, SCOPE_ADMIN])
    )
    return key


async def _run(command: str) -> str | None:
    database = Database(load_database_settings())
    try:
        async with database.write() as session:
            return await (create_owner(session) if command == "create-owner" else rotate_owner_key(session))
    finally:
        await database.dispose()


def main() -> int:
    """Print the new key on stdout, or nothing when the owner exists already."""
    parser = argparse.ArgumentParser(prog="python -m interpedia_shared.accounts")
    parser.add_argument("command", choices=["create-owner", "new-owner-key"])
    key = asyncio.run(_run(parser.parse_args().command))
    if key is not None:
        sys.stdout.write(key + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
