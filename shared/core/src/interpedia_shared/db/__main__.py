"""`python -m interpedia_shared.db upgrade | check`: the only way the schema changes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from interpedia_shared.settings import DatabaseSettings, load_database_settings


def alembic_config(settings: DatabaseSettings) -> Config:
    """Alembic's configuration for our migrations, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", settings.sqlalchemy_url().replace("%", "%%"))
    return config


def upgrade(settings: DatabaseSettings) -> None:
    """Bring the schema to the newest revision; nothing happens when it is there already."""
    command.upgrade(alembic_config(settings), "head")


def main() -> int:
    """Run one command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m interpedia_shared.db")
    parser.add_argument("command", choices=["upgrade", "check", "revision"])
    parser.add_argument("-m", "--message", default="", help="what a new revision is for")
    arguments = parser.parse_args()
    settings = load_database_settings()
    if arguments.command == "upgrade":
        upgrade(settings)
    elif arguments.command == "revision":
        command.revision(alembic_config(settings), message=arguments.message, autogenerate=True)
    else:
        try:
            command.check(alembic_config(settings))
        except CommandError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
