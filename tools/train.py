"""Train a model of any task, from a config or from a folder of your own data."""

import argparse
import copy
import sys

from vik_mm_cli.command_line import add_training_arguments, check_data_or_config, parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_training_arguments(parser)
    return parse(parser, argv, check_data_or_config)


def run(args):
    """Train, and write the report where the config asks for one; ends the process if it is stopped."""
    from vik_mm.engine.runner import TrainingStopped
    from vik_mm.recipes import prepare_training, train

    cfg = prepare_training(args)
    # The Runner changes it.
    before = copy.deepcopy(cfg)
    try:
        runner = train(cfg)
    except TrainingStopped as stopped:
        print(f'{stopped}; carry on with --resume --work-dir {cfg.work_dir}', file=sys.stderr)
        sys.exit(stopped.exit_code)
    if cfg.get('report') and cfg.get('val_dataloader'):
        report(before, runner)


def report(cfg, runner):
    """Write what tools/evaluate.py writes, of the best checkpoint; what keeps it from that is said, and no failure."""
    from vik_mm.evaluation import evaluate_training, folder_of_report
    from vik_mm.visualization import write_report

    try:
        result = evaluate_training(cfg, runner)
    except BadInputError as error:
        print(f'the training is complete; there is no report: {error}', file=sys.stderr)
        return
    if result is not None:  # the main process
        path = write_report(result, folder_of_report(cfg))
        for sentence in result.findings:
            print(sentence)
        print(f'checkpoint: {result.checkpoint}')
        print(f'report: {path}')


def main():
    with end_on_user_errors('stopped at once, nothing saved; --resume goes on from the newest checkpoint, if any'):
        run(parse_args())


if __name__ == '__main__':
    main()
