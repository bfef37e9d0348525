"""Functions on tensors; torch is all they know."""

from .rbf_kan import rbf_kan, rbf_kan_backend

__all__ = ['rbf_kan', 'rbf_kan_backend']
