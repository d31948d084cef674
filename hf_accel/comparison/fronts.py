"""The Pareto front of a comparison: the rows that no other surpasses in accuracy at the same or a lower cost."""

from __future__ import annotations

from collections.abc import Sequence

from hf_accel.comparison.schema import Row

COSTS = ("parameters", "seconds")


def cost_of(row: Row, cost: str) -> float | None:
    """A figure of a row of which less is better."""
    return row.parameters if cost == "parameters" else row.mean(cost)


def pareto_fronts(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Cost -> names of the rows on its front, the cheapest first; a cost that fewer than two values have is absent."""
    fronts = {}
    for cost in COSTS:
        points = [(row.name, cost_of(row, cost), row.mean("accuracy")) for row in rows]
        known = [(name, x, y) for name, x, y in points if x is not None and y is not None]
        if len({x for _, x, _ in known}) > 1:
            fronts[cost] = [known[place][0] for place in pareto_front([(x, y) for _, x, y in known])]
    return fronts


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points that no other surpasses, the cheapest first; of equal points, the first.

    Args:
        points: (cost, value) each.

    >>> pareto_front([(3, 0.9), (1, 0.8), (2, 0.7), (5, 0.9)])
    [1, 0]
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
