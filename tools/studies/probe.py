"""Look at a study's configs and at this machine, in a process of its own because torch's import takes seconds.

tools/compare.py runs this. It reads command lines of tools/train.py (commands) and names of figures (figures) as JSON
from standard input. It writes this machine's description, and for each command line its whole config or what is wrong
with it, to a file.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import platform
import sys
from pathlib import Path

from vik_mm_cli.errors import BadInputError


def machine():
    """Describe what a run's time and last digits depend on."""
    import torch

    return dict(
        hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def _processor():
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load_tool():
    """Load tools/train.py, which is in no package."""
    spec = importlib.util.spec_from_file_location('train_tool', Path(__file__).resolve().parents[1] / 'train.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def look(tool, arguments, figures):
    """Load a config as tools/train.py does.

    Returns:
        dict: ``config``, or ``error``.
    """
    from vik_mm.config import end_safe_config, load_config
    from vik_mm.datasets.layouts import check_datasets

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = tool.parse_args(arguments)
        cfg = load_config(args.config, args.cfg_options, args.work_dir, args.backbone, args.safe_config, args.amp)
        check_datasets(cfg, splits=('train', 'val'))
        check_figures(cfg, figures)
    except SystemExit as end:
        return dict(error=_reason(end, said.getvalue()))
    # Whatever a config does when it runs is its author's, and is told with the config's name.
    except Exception as error:
        text = str(error).strip().splitlines()
        return dict(error=(text[0] if text else type(error).__name__))
    finally:
        end_safe_config()  # the next row has a config of its own
    config = json.loads(json.dumps(cfg.to_dict(), default=lambda value: getattr(value, '__qualname__', str(value))))
    # What differs between the runs of a row, or says only where the run lies.
    config.pop('work_dir', None)
    (config.get('randomness') or {}).pop('seed', None)
    return dict(config=config)


def _reason(end, said):
    """Say in a line why a tool ended: vik_mm_cli ends with a message, argparse with a number after it wrote one."""
    lines = (end.code if isinstance(end.code, str) else said).strip().splitlines()
    if not lines or end.code == 0:
        return 'with these arguments tools/train.py ends without a training'
    before, mark, message = lines[-1].partition('error: ')
    return message if mark else before


def check_figures(cfg, figures):
    """Compare figures with the prefixes that the validation's metrics give to theirs.

    Raises:
        BadInputError: If a figure cannot be logged.
    """
    from mmengine.registry import METRICS

    evaluators = cfg.get('val_evaluator')
    if not evaluators or not cfg.get('val_dataloader'):
        raise BadInputError('the config has no validation: no figure is logged')
    prefixes = []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        kind = evaluator['type']
        if isinstance(kind, str):
            with METRICS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                kind = registry.get(kind)
        prefixes.append(evaluator.get('prefix') or getattr(kind, 'default_prefix', None))
    if None in prefixes:
        return
    for figure in figures:
        if not any(figure.startswith(f'{prefix}/') for prefix in prefixes):
            names = ', '.join(f'{prefix}/' for prefix in dict.fromkeys(prefixes))
            raise BadInputError(f'the figure {figure} is not logged: those of this config begin with {names}')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('answer', help='file to write to, as JSON')
    return parser.parse_args(argv)


def main():
    args = parse_args()
    order = json.loads(sys.stdin.read())
    looked = []
    if order['commands']:
        import vik_mm  # noqa: F401  registers ViK

        tool = load_tool()
        looked = [look(tool, arguments, order['figures']) for arguments in order['commands']]
    Path(args.answer).write_text(json.dumps(dict(machine=machine(), configs=looked)))


if __name__ == '__main__':
    main()
