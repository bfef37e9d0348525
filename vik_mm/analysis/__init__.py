"""Numbers and curves about a trained model; what they look like is drawn by :mod:`vik_mm.visualization`."""

from .attention import AttentionMaps, attention_maps, edge_functions, singular_values

__all__ = ['AttentionMaps', 'attention_maps', 'edge_functions', 'singular_values']
