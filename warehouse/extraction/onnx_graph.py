"""Depths in a graph of operators: the longest path from an input to each node.

Gets the nodes of a graph and the values that count as inputs; hands on a depth for each node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import AttributeProto, GraphProto, NodeProto

from warehouse.errors import SourceError

MAX_NESTING = 50
"""How deep graphs may lie within each other; in real ones, three."""


def longest_paths(nodes: Sequence[NodeProto], sources: Mapping[str, int]) -> list[int | None]:
    """Count the nodes before each node on the longest path from a source.

    Parameters
    ----------
    nodes
        The nodes of one graph, in any order.
    sources
        Values from outside that count, and the depth of a node that reads nothing else: 0 for an input.

    Returns
    -------
    list
        For each node its depth, or None if it depends on no source: on constants alone.

    Raises
    ------
    SourceError
        Two nodes make one value, or nodes wait for each other.
    """
    maker = producers(nodes)
    makers_of = [{maker[name] for name in inputs(node) if name in maker} for node in nodes]
    waiting = [len(makers) for makers in makers_of]
    readers: list[list[int]] = [[] for _ in nodes]
    for number, makers in enumerate(makers_of):
        for one in makers:
            readers[one].append(number)

    depths: list[int | None] = [None] * len(nodes)
    ready = [number for number, n in enumerate(waiting) if n == 0]
    n_done = 0
    while ready:
        number = ready.pop()
        n_done += 1
        reached = [sources[name] for name in inputs(nodes[number]) if name in sources and name not in maker]
        reached += [depth + 1 for one in makers_of[number] if (depth := depths[one]) is not None]
        depths[number] = max(reached, default=None)
        for reader in readers[number]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if n_done < len(nodes):
        stuck = next(number for number, n in enumerate(waiting) if n)
        raise SourceError(f"the node {nodes[stuck].name!r} ({nodes[stuck].op_type}) waits for its own output: a cycle")
    return depths


def producers(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """The number of the node that makes each value.

    Raises
    ------
    SourceError
        Two nodes make one value.
    """
    maker: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in node.output:
            if name and maker.setdefault(name, number) != number:
                raise SourceError(f"two nodes make the value {name!r}")
    return maker


def inputs(node: NodeProto) -> set[str]:
    """The values that a node reads, those that its subgraphs take from around it among them."""
    names = {name for name in node.input if name}  # an empty name leaves an optional input out
    for graph in subgraphs(node):
        names |= _captured(graph, 0)
    return names


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a loop, the branches of a condition."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _captured(graph: GraphProto, nesting: int) -> set[str]:
    if nesting > MAX_NESTING:
        raise SourceError(f"graphs lie more than {MAX_NESTING} deep within each other")
    names: set[str] = {value.name for value in graph.output}
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update(name for name in node.input if name)
        made.update(node.output)
        for inner in subgraphs(node):
            names |= _captured(inner, nesting + 1)
    return names - made
