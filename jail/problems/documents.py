"""YAML of a package, within bounds.

Every scalar is read as the text that it is written as, and becomes a number or a truth where the type that is
asked for has one: no tag is obeyed and nothing is guessed. Aliases are refused, with which a page of YAML can
stand for more than any memory holds.
"""

from typing import Any, TypeVar

import msgspec
import yaml

from jail.errors import PackageError

BYTES_MAX = 64 << 10
"""Of one document."""

DEPTH_MAX = 16
"""Of lists and maps in each other."""

T = TypeVar("T")

_CURE = "Mend that file of the package."


class _Texts(yaml.BaseLoader):
    """Makes texts, lists and maps, and nothing else."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=mark)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"deeper than {DEPTH_MAX}", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            wrong = "a key is no text" if not isinstance(key, yaml.ScalarNode) else None
            if wrong is None and key.value in seen:
                wrong = f"{key.value[:100]!r} stands twice"
            if wrong:
                raise yaml.MarkedYAMLError(problem=wrong, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(name: str, content: bytes, kind: type[T]) -> T:
    """What a document says, as a `kind`; an empty one is an empty map. Raises PackageError, which names it.

    A key without a value is as if it were not there.
    """
    if len(content) > BYTES_MAX:
        raise PackageError(f"{name} has {len(content)} bytes; the maximum is {BYTES_MAX}.", _CURE)
    try:
        return msgspec.convert(_without_nothing(_load(content)), kind, strict=False)
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise PackageError(f"{name} cannot be used: {_one_line(error)}.", _CURE) from None


def _load(content: bytes) -> Any:
    loader = _Texts(content.decode("utf-8-sig"))
    try:
        return loader.get_single_data() or {}
    finally:
        loader.dispose()


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(one) for key, one in value.items() if one not in ("", "~", "null")}


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
