"""Synchronised batch norm runs on GPUs alone."""

from typing import Any

_SYNC = {'SyncBN', 'MMSyncBN', 'NaiveSyncBN'}


def without_sync_bn(node: Any) -> Any:
    """Write ``BN`` for every synchronised batch norm.

    Args:
        node (Any): A config, or a part of one.

    Returns:
        Any: A copy with the change; the argument stays as it is.
    """
    if isinstance(node, dict):
        changed = {key: without_sync_bn(value) for key, value in node.items()}
        if isinstance(changed.get('type'), str) and changed['type'] in _SYNC:
            changed['type'] = 'BN'
        return type(node)(changed)
    if type(node) in (list, tuple):
        return type(node)(map(without_sync_bn, node))
    return node
