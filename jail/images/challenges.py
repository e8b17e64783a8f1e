"""What a registry asks of who wants in: the header WWW-Authenticate, RFC 9110 section 11.6.1."""

import re

import msgspec

_LENGTH_MAX = 4096
_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[\s,]*({_NAME})(?=\s|,|\Z)(?!\s*=)")
_PARAMETER = re.compile(rf'[\s,]*({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))')


class Challenge(msgspec.Struct, frozen=True):
    """One way in. scheme, and the names of parameters, in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(headers: list[str]) -> list[Challenge]:
    """The challenges of all such headers, as far as they can be read."""
    return [challenge for header in headers for challenge in _parse(header[:_LENGTH_MAX])]


def _parse(text: str) -> list[Challenge]:
    found, place = [], 0
    while scheme := _SCHEME.match(text, place):
        place = scheme.end()
        parameters = {}
        while parameter := _PARAMETER.match(text, place):
            place = parameter.end()
            name, quoted, bare = parameter.groups()
            parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if bare is None else bare
        found.append(Challenge(scheme[1].lower(), parameters))
    return found
