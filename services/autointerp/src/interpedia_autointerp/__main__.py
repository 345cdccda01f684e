"""`python -m interpedia_autointerp`: run the API."""

from __future__ import annotations

from interpedia_autointerp.app import create_app
from interpedia_autointerp.llm import load_llm_settings
from interpedia_autointerp.settings import load_settings
from interpedia_shared.app import serve
from interpedia_shared.settings import load_database_settings


def main() -> None:
    """Read the settings and serve."""
    settings = load_settings()
    serve(create_app(settings, load_database_settings(), load_llm_settings()), settings)


if __name__ == "__main__":
    main()
