"""The command ``vik-mm``: the tools, for those who have installed the wheel and have no checkout."""

import difflib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .errors import BadInputError, end_on_user_errors

# Name, and file below tools/.
COMMANDS = {
    'train': 'train.py',
    'test': 'test.py',
    'infer': 'infer.py',
    'export': 'export.py',
    'look': 'data/look.py',
    'evaluate': 'evaluate.py',
}
_HELP = """usage: vik-mm COMMAND [ARGUMENT ...]

{commands}

vik-mm COMMAND --help lists the arguments of a command. Configs that ship with the wheel are named by vik_mm::, as in
  vik-mm train vik_mm::vik/vik-demo_shapes.py
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        argv (Sequence[str], optional): The command and its arguments. None takes the process's. Defaults to None.

    Raises:
        SystemExit: With what the command ends with; 2 where there is no such command.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help'):
        lines = '\n'.join(f'  {name:<10}{_summary(name)}' for name in _available())
        sys.stdout.write(_HELP.format(commands=lines))
        sys.exit(0 if argv else 2)
    if argv[0] == '--version':
        sys.stdout.write(f'vik-mm {metadata.version("vik_mm")}\n')
        return
    name, *arguments = argv
    if name not in _available():
        near = difflib.get_close_matches(name, _available(), n=1)
        hint = f'did you mean {near[0]}?' if near else f'it has {", ".join(_available())}'
        sys.stderr.write(f'error: vik-mm has no command {name!r}; {hint}\n')
        sys.exit(2)
    with end_on_user_errors():
        _run(name, arguments)


def tools_folder() -> Path:
    """Find the tools: a wheel has them below ``vik_mm/.mim``, a checkout beside the package.

    Returns:
        Path: The folder.

    Raises:
        BadInputError: If the installation came without them.
    """
    # The package beside this one; importing it takes seconds.
    root = Path(__file__).resolve().parent.parent
    for folder in (root / 'vik_mm/.mim/tools', root / 'tools'):
        if (folder / 'train.py').is_file():
            return folder
    raise BadInputError(f'{root} has no tools; install vik_mm again')


def _available() -> list[str]:
    folder = tools_folder()
    return [name for name, file in COMMANDS.items() if (folder / file).is_file()]


def _summary(name: str) -> str:
    """Read the first line of a tool's docstring, without running it."""
    source = (tools_folder() / COMMANDS[name]).read_text(encoding='utf-8')
    return source.split('"""')[1].strip().splitlines()[0]


def _run(name: str, arguments: Sequence[str]) -> None:
    path = tools_folder() / COMMANDS[name]
    # What argparse shows as the name of the program.
    sys.argv = [f'vik-mm {name}', *arguments]
    module_name = f'vik_mm_tool_{name}'
    loader = importlib.machinery.SourceFileLoader(module_name, os.fspath(path))
    spec = importlib.util.spec_from_loader(module_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.main()
