"""Runs an exported graph node by node, as its own code would, and tells of each node and module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from serving_agent.inspection.captures.exported_graph import (
    CALLS,
    Watched,
    has_tensor,
    is_shown,
    path_of,
    seen_of,
    source_of,
)
from serving_agent.inspection.captures.module_groups import Group
from serving_agent.inspection.points import Points, Seen


class Interpreter(torch.fx.Interpreter):
    """One run of a graph."""

    def __init__(self, watched: Watched, points: Points) -> None:
        super().__init__(watched.module)
        self.extra_traceback = False  # errors stay as the model raised them
        self._watched = watched
        self._points = points
        self._seconds: dict[Node, float] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node; an error says where it arose."""
        clock = self._points.clock
        began = clock.now()
        try:
            value = super().run_node(n)
        except Exception:
            self._points.failed_in(self._watched.prefix + path_of(n), source_of(n))
            raise
        if n.op not in CALLS:
            return value
        self._seconds[n] = clock.now() - began
        with clock.aside():
            return self._told(n, value)

    def _told(self, node: Node, value: Any) -> Any:
        if is_shown(node, value):
            value = self._points.record(seen_of(node, self._watched.prefix, self._seconds[node]), value)
        self.env[node] = value
        for group, members, values in self._watched.ended.get(node, ()):
            seconds = sum(self._seconds.get(member, 0.0) for member in members)
            self._returned(group, values, seconds)
        return self.env[node]

    def _returned(self, group: Group, values: list[Node], seconds: float) -> None:
        """Record what a module returned, and put an edit of it where what follows reads it."""
        nodes = [node for node in values if node in self.env and has_tensor(self.env[node])]
        if not nodes:
            return
        path = self._watched.prefix + group.path
        seen = Seen(module=path, kind=group.kind, depth=group.depth, seconds=seconds)
        if len(nodes) == 1:
            self.env[nodes[0]] = self._points.record(seen, self.env[nodes[0]])
            return
        changed = self._points.record(seen, {node.name: self.env[node] for node in nodes})
        for node in nodes:
            self.env[node] = changed[node.name]


def interpreted(watched: Watched, points: Points) -> Callable[..., Any]:
    """Return what stands in the place of the graph's `forward`."""

    def run(*args: Any, **named: Any) -> Any:
        if not named:
            return Interpreter(watched, points).run(*args)
        codegen = watched.module.graph._codegen
        flat = codegen.process_inputs(*args, **named)
        result = Interpreter(watched, points).run(*flat, enable_io_processing=False)
        return codegen.process_outputs(result)

    return run
