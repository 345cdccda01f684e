"""The API's documentation for browsers. Its files come from an installed package, never from another host."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
ASSETS = "/docs/assets"


def assets_folder() -> Path:
    """Where the package `fastapi-offline` keeps Swagger UI and ReDoc."""
    return Path(str(files("fastapi_offline"))) / "static"


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Try the API in a browser."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Interpedia API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """Read the API's reference in a browser."""
    return get_redoc_html(
        openapi_url="/openapi.json",
        title="Interpedia API",
        redoc_js_url=f"{ASSETS}/redoc.standalone.js",
        redoc_favicon_url=f"{ASSETS}/favicon.png",
        with_google_fonts=False,
    )


def mount_assets(app: FastAPI) -> None:
    """Serve the documentation's scripts and styles."""
    app.mount(ASSETS, StaticFiles(directory=assets_folder()), name="docs-assets")
