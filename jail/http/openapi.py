"""The OpenAPI 3.1 description, generated from the types that the service itself parses with."""

from typing import Any

import msgspec

from jail import __version__
from jail.files import PATTERN
from jail.http import files, packages
from jail.http.files import FILES
from jail.http.files import ONE as ONE_FILE
from jail.http.images import ARCHIVES, IMAGES, ONE, ONE_ARCHIVE, PRUNE, Pull
from jail.http.languages import LANGUAGES, LanguageList
from jail.http.operations import ARCHIVE, EVENTS, LINES
from jail.http.problems import MEDIA_TYPE, Problem
from jail.images.protocol import Done, Failed, Progress
from jail.images.summary import ImageList, Summary
from jail.languages.requests import LanguageRequest
from jail.limits import MINIMA, Limits
from jail.problems.judge import Judged
from jail.result import GroupResult, Result
from jail.spec import GroupRequest, Request, Rules
from jail.steps.result import StepsResult
from jail.steps.spec import StepsRequest

_REFERENCE = "#/components/schemas/{name}"

_PROBLEMS = {
    "400": "The client went away in the middle of its body.",
    "401": "No key, or one that is not known.",
    "403": "The key, if any, is not one of those who may administer images; or the file is published.",
    "404": "There is no such image or file, or no live job of that id that publishes that port.",
    "408": "Nothing of the body came for long.",
    "409": "The image or file is in use.",
    "413": "The body is too large.",
    "415": "The body is of none of the types listed.",
    "422": "A field is wrong; `field` names it.",
    "429": "Too many connections to this job, or the caller's quota of files is taken up by what is in use.",
    "500": "A defect of jail.",
    "501": "This host stores no files.",
    "502": "Nobody listens on that port, or what it said is no HTTP.",
    "503": "The host is full, or the service is draining.",
    "504": "The program took no connection, or gave no answer.",
    "507": "There is no room for images, or for files.",
}

_KINDS_OF_FILES = [files.StoredName, files.StoredSummary, files.StoredList]
_KINDS_OF_PACKAGES = [packages.ProblemSummary, packages.SubmissionRequest, Judged]
_KINDS_OF_IMAGES = [Pull, ImageList, Summary, Progress, Done, Failed]

_BINARY = {"schema": {"type": "string", "format": "binary"}}

FORWARDED = "/v1/jobs/{id}/ports/{port}/{path}"
"""What callers reach of a job that publishes: see jail.http.forward."""


def describe(rules: Rules) -> bytes:
    """The document as JSON, with the ranges that this operator allows."""
    kinds = [
        Request,
        GroupRequest,
        StepsRequest,
        LanguageRequest,
        Result,
        GroupResult,
        StepsResult,
        Problem,
        LanguageList,
        *_KINDS_OF_IMAGES,
        *_KINDS_OF_FILES,
        *_KINDS_OF_PACKAGES,
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    _add_ranges(schemas["LimitsRequest"]["properties"], rules)
    for kind in ("Request", "ProcessRequest", "StepRequest", "CheckerRequest", "LanguageRequest"):
        schemas[kind]["properties"]["policy"]["enum"] = sorted(rules.policies)
    schemas["Network"]["properties"]["mode"]["enum"] = sorted(rules.networks)
    schemas["GroupRequest"]["properties"]["processes"]["maxItems"] = rules.processes
    document = {
        "openapi": "3.1.0",
        "info": {"title": "jail", "version": __version__},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "paths": {
            "/v1/run": {"post": _run()},
            FORWARDED: {"get": _forward()},
            LANGUAGES: {"get": _languages()},
            **_files(),
            **_packages(),
            **_images(),
            **_reads(),
        },
    }
    return msgspec.json.encode(document)


def _add_ranges(properties: dict[str, Any], rules: Rules) -> None:
    for field in Limits.__struct_fields__:
        kind = "number" if field == "cpus" else "integer"
        properties[field] = {
            "type": [kind, "null"],
            "minimum": getattr(MINIMA, field),
            "maximum": getattr(rules.ceilings, field),
            "default": getattr(rules.defaults, field),
        }


def _content(*names: str, media_type: str = "application/json") -> dict[str, Any]:
    schemas = [{"$ref": _REFERENCE.format(name=name)} for name in names]
    return {media_type: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}


def _problems(*statuses: str) -> dict[str, Any]:
    return {
        status: {"description": _PROBLEMS[status], "content": _content("Problem", media_type=MEDIA_TYPE)}
        for status in statuses
    }


def _run() -> dict[str, Any]:
    return {
        "summary": "Run one job and wait for its end.",
        "operationId": "run",
        "security": [{}, {"key": []}],
        "requestBody": {
            "required": True,
            "content": _content("Request", "GroupRequest", "StepsRequest", "LanguageRequest"),
        },
        "responses": {
            "200": {
                "description": "The job has ended. If it publishes ports, this and the headers come when it "
                "has started, and the body then.",
                "headers": _of_job(),
                "content": _content("Result", "GroupResult", "StepsResult"),
            },
            **_problems("400", "401", "413", "415", "422", "500", "503"),
        },
    }


def _of_job() -> dict[str, Any]:
    texts = {"Location": "Of a job that publishes ports, its path.", "Jail-Job": "Of the same, its id."}
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


def _forward() -> dict[str, Any]:
    """Of any method; one stands for all."""
    schemas = {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65_535},
        "path": {"type": "string"},
    }
    return {
        "summary": "Have a program in a sandbox answer, by whatever method. As a WebSocket: the bytes of a "
        "TCP connection to it, in binary messages.",
        "operationId": "forward",
        "security": [{}, {"key": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in schemas.items()
        ],
        "responses": {
            "default": {"description": "What the program answered, with the headers that may pass."},
            **_problems("400", "401", "404", "429", "500", "502", "503", "504"),
        },
    }


def _images() -> dict[str, Any]:
    events = {
        **_content("Progress", "Done", "Failed", media_type=LINES),
        EVENTS: {"schema": {"type": "string"}},
    }
    nameless = _parameter("nameless", "query", {"type": "string", "enum": ["false", "true"]})
    reference = _parameter("reference", "path", {"type": "string"})
    of_one = ("404", "409", "422", "507")
    pull = {**_content("Pull"), **dict.fromkeys(ARCHIVES, _BINARY)}
    return {
        IMAGES: {
            "get": _administer("All images.", _content("ImageList")),
            "post": {
                **_administer(
                    "Fetch an image from a registry, or bring in the archive that is the body. A line for "
                    "each event, or server-sent events; the last is `done` or `failed`.",
                    events,
                    ("400", "413", "415", "422"),
                ),
                "parameters": [_parameter("name", "query", {"type": "string"})],
                "requestBody": {"required": True, "content": pull},
            },
        },
        PRUNE: {
            "post": _administer("Remove what no image needs.", _content("Done"), of_one, nameless),
        },
        ONE: {
            "get": _administer("An image, by name or digest.", _content("Summary"), ("404",), reference),
            "delete": _administer("Remove a name or an image.", _content("Done"), of_one, reference),
        },
        ONE_ARCHIVE: {
            "get": _administer("An image as an OCI archive.", {ARCHIVE: _BINARY}, of_one, reference),
        },
    }


def _languages() -> dict[str, Any]:
    text = "What an image has of each language; the first to ask for an image waits until all are tried."
    return {
        "summary": text,
        "operationId": "languages",
        "security": [{}, {"key": []}],
        "parameters": [_parameter("image", "query", {"type": "string", "default": "host"})],
        "responses": {
            "200": {"description": text, "content": _content("LanguageList")},
            **_problems("401", "422", "500", "503"),
        },
    }


def _files() -> dict[str, Any]:
    body = {"required": True, "content": {files.MEDIA_TYPE: _BINARY}}
    put = {
        "summary": "Keep the body; nothing of it stays unless all of it has come.",
        "security": [{}, {"key": []}],
        "requestBody": body,
        "responses": {
            "200": {"description": "It was there already.", "content": _content("StoredName")},
            "201": {"description": "It is kept.", "content": _content("StoredName")},
            **_problems("400", "401", "408", "413", "422", "429", "500", "501", "503", "507"),
        },
    }
    digest = {"parameters": [_parameter("digest", "path", {"type": "string", "pattern": f"^{PATTERN}$"})]}
    binary = {files.MEDIA_TYPE: _BINARY}
    return {
        FILES: {
            "get": _use("The caller's own files, and what is published.", "200", _content("StoredList")),
            "put": put,
        },
        ONE_FILE: {
            "put": {**put, **digest},
            "get": {**_use("The bytes of a file.", "200", binary, "404", "422"), **digest},
            "head": {**_use("How many bytes it has.", "200", {}, "404", "422"), **digest},
            "delete": {
                **_use("Remove one of the caller's own.", "204", {}, "403", "404", "409", "422"),
                **digest,
            },
        },
    }


def _packages() -> dict[str, Any]:
    sent = {"required": True, "content": {packages.MEDIA_TYPE: _BINARY}}
    put = _use("Keep a problem package, a zip archive, and read it.", "200", _content("ProblemSummary"))
    put["responses"] |= {
        "201": {"description": "It is kept.", "content": _content("ProblemSummary")},
        **_problems("400", "408", "413", "422", "429", "503", "507"),
    }
    of = {"parameters": [_parameter("id", "path", {"type": "string", "pattern": f"^{PATTERN}$"})]}
    judge = _use(
        "What becomes of a submission.", "200", _content("Judged"), "404", "413", "415", "422", "503"
    )
    submission = {"required": True, "content": _content("SubmissionRequest")}
    return {
        packages.PROBLEMS: {"put": {**put, "requestBody": sent}},
        packages.ONE: {"delete": {**_use("Remove a package.", "204", {}, "404"), **of}},
        packages.JUDGE: {"post": {**judge, "requestBody": submission, **of}},
    }


def _use(text: str, status: str, content: dict[str, Any], *problems: str) -> dict[str, Any]:
    answer = {"description": text, "content": content} if content else {"description": text}
    return {
        "summary": text,
        "security": [{}, {"key": []}],
        "responses": {status: answer, **_problems("401", *problems, "500", "501")},
    }


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _administer(
    text: str, content: dict[str, Any], statuses: tuple[str, ...] = (), *parameters: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": text,
        "security": [{"key": []}],
        "parameters": list(parameters),
        "responses": {
            "200": {"description": text, "content": content},
            **_problems("401", "403", *statuses, "500", "503"),
        },
    }


def _reads() -> dict[str, Any]:
    texts = {
        "/healthz": "The process answers.",
        "/readyz": "Jobs are taken: the supervisor lives and the service does not drain.",
        "/metrics": "Prometheus metrics.",
        "/v1/capabilities": "What this host and its operator offer.",
        "/v1/limits": "Each limit: default, minimum, maximum.",
        "/openapi.json": "This document.",
    }
    return {path: {"get": _read(path, text)} for path, text in texts.items()}


def _read(path: str, text: str) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else "application/json"
    schema = {"type": "string" if path == "/metrics" else "object"}
    statuses = ("401",) if path.startswith(("/v1/", "/metrics")) else ()
    statuses += ("503",) if path == "/readyz" else ()
    return {
        "summary": text,
        "security": [{}, {"key": []}],
        "responses": {
            "200": {"description": text, "content": {kind: {"schema": schema}}},
            **_problems(*statuses),
        },
    }
