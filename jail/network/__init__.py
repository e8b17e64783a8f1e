"""Isolated networks: the hub, which joins the sandboxes of one job to a segment of their own, and its client.

The service has the client (jail.network.client). The hub is a program, jail.network.__main__, of
which the service imports nothing: addresses, rules and the protocol are what both sides know.
"""
