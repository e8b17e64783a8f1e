"""The HTTP service, version 1: one application on top of one engine."""

from jail.http.app import build

__all__ = ["build"]
