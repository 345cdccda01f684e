"""`python -m interpedia_gateway.openapi FILE`: write the description of the public API."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import SecretStr

from interpedia_gateway.app import create_app
from interpedia_gateway.settings import GatewaySettings
from interpedia_shared.settings import DatabaseSettings


def rendered() -> str:
    """The description as sorted, indented JSON; no database is asked."""
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody:nothing@127.0.0.1:1/none"))
    app = create_app(GatewaySettings(), nowhere)
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file named by the only argument."""
    Path(sys.argv[1]).write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    main()
