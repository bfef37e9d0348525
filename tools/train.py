"""Train a model of any task, from a config or from a folder of your own data."""

import argparse
import sys

from vik_mm_cli.command_line import add_training_arguments, check_data_or_config, parse
from vik_mm_cli.errors import end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_training_arguments(parser)
    return parse(parser, argv, check_data_or_config)


def run(args):
    """Train; ends the process."""
    from vik_mm.engine.runner import TrainingStopped
    from vik_mm.recipes import prepare_training, train

    cfg = prepare_training(args)
    try:
        train(cfg)
    except TrainingStopped as stopped:
        print(f'{stopped}; carry on with --resume --work-dir {cfg.work_dir}', file=sys.stderr)
        sys.exit(stopped.exit_code)


def main():
    with end_on_user_errors('stopped at once, nothing saved; --resume goes on from the newest checkpoint, if any'):
        run(parse_args())


if __name__ == '__main__':
    main()
