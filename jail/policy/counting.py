"""The uses of a call that are counted, and those that are not: a decision of our own.

Init counts, and answers: native/listener.c. libseccomp has no rule for "allowed, but if an argument has this
value init is asked".
"""

from jail.policy import bpf
from jail.policy.decisions import Node, Word, decide
from jail.policy.text import Condition, Counted


def counting(rule: Counted) -> Node:
    """What meets every condition goes to init, and the rest is allowed."""
    node: Node = bpf.RET_USER_NOTIF
    for condition in reversed(rule.conditions):
        node = _where(condition, node)
    return node


def _where(condition: Condition, met: Node) -> Node:
    word = Word(bpf.ARGUMENT_OFFSETS[condition.argument], condition.mask)
    runs = {0: bpf.RET_ALLOW} | {value + 1: bpf.RET_ALLOW for value in condition.values if value < word.mask}
    return decide(word, sorted((runs | dict.fromkeys(condition.values, met)).items(), key=lambda run: run[0]))
