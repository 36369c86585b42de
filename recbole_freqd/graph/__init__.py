"""Graphs of users or items, and their frequencies, without RecBole."""

from recbole_freqd.graph.adjacency import Adjacency, EntityGraph
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.similarity import cosine_graph

__all__ = ["Adjacency", "EntityGraph", "cooccurrence_graph", "cosine_graph"]
