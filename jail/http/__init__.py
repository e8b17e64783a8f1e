"""The HTTP service, version 1: one application on top of one engine."""

from jail.http.app import build
from jail.http.metrics import Metrics, Table

__all__ = ["Metrics", "Table", "build"]
