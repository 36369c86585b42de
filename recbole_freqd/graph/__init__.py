"""Graphs of users or items, and their frequencies, without RecBole."""

from recbole_freqd.graph.adjacency import Adjacency, EntityGraph
from recbole_freqd.graph.cooccurrence import cooccurrence_graph

__all__ = ["Adjacency", "EntityGraph", "cooccurrence_graph"]
