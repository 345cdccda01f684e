"""`python -m interpedia_gateway`: run the service."""

from __future__ import annotations

from interpedia_gateway.app import create_app
from interpedia_gateway.settings import GatewaySettings
from interpedia_shared.app import serve
from interpedia_shared.settings import load_database_settings


def main() -> None:
    """Read the settings and serve."""
    settings = GatewaySettings()
    serve(create_app(settings, load_database_settings()), settings)


if __name__ == "__main__":
    main()
