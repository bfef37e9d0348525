"""Configs in Python that are read as data: what MMEngine writes beside a training and into its checkpoints.

Such a text is a program by its form, but it holds only names that are given values. It is parsed here and not run.
"""

import ast
from typing import Any

from mmengine.config import Config

from vik_mm.errors import BadInputError

_MOST_CHARACTERS = 5_000_000


def parse_literal_config(text: str, name: str) -> Config:
    """Read a config of plain values, without running it.

    Args:
        text (str): Lines such as ``model = dict(type='ImageClassifier', head=dict(num_classes=3))``: what
            ``Config.pretty_text`` gives, and what a Runner dumps.
        name (str): Where it stands, for errors.

    Returns:
        Config: The config.

    Raises:
        BadInputError: If it is no Python, or holds anything but names with numbers, text, lists, tuples, sets and
            dicts.
    """
    if len(text) > _MOST_CHARACTERS:
        raise BadInputError(f'{name} has {len(text)} characters, which is no config of a training')
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInputError(f'{name} cannot be read as a config ({" ".join(str(error).split())[:200]})') from error
    values = {}
    try:
        for statement in statements:
            target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
            if not isinstance(statement, ast.Assign) or not isinstance(target, ast.Name):
                raise _refusal(statement, name)
            values[target.id] = _value(statement.value, name)
        if '_base_' in values:
            raise BadInputError(f'{name} builds on other files (_base_), so it cannot be read only as data')
        return Config(values)
    except (TypeError, KeyError, RecursionError) as error:  # a list as a key, a name that MMEngine keeps for itself
        raise BadInputError(f'{name} is no config ({" ".join(str(error).split())[:200]})') from error


def _value(node: ast.expr, name: str) -> Any:
    if isinstance(node, ast.Dict):
        if None in node.keys:  # {**other}
            raise _refusal(node, name)
        keys = [_key(key, name) for key in node.keys if key is not None]
        return {key: _value(value, name) for key, value in zip(keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(each, name) for each in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.Dict):
            return _value(node.args[0], name)  # dict({...}): how MMEngine writes keys that are no names
        if node.args:
            raise _refusal(node, name)
        return {_argument(keyword, name): _value(keyword.value, name) for keyword in node.keywords}
    return _key(node, name)


def _argument(keyword: ast.keyword, name: str) -> str:
    if keyword.arg is None:  # dict(**other)
        raise _refusal(keyword.value, name)
    return keyword.arg


def _key(node: ast.expr, name: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise _refusal(node, name) from None


def _refusal(node: ast.stmt | ast.expr, name: str) -> BadInputError:
    shown = ' '.join(ast.unparse(node).split())[:80]
    return BadInputError(f'{name}, line {node.lineno}: {shown!r} is no plain value, and nothing is run to read it')
