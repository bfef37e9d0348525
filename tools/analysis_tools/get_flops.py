"""Count the parameters and multiply-adds of a config's model; matrix products and convolutions are counted."""

import argparse

from vik_mm_cli.command_line import add_config_arguments, parse
from vik_mm_cli.errors import end_on_user_errors


def count(model, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-adds for one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    image = torch.zeros(1, getattr(model.backbone, 'in_channels', 3), height, width, device=device)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():  # which the operators need to be seen
        model.eval()(image, mode='tensor')
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('--shape', type=int, nargs='+', default=[224], help='image size: side, or height and width')
    return parse(parser, argv)


def run(args):
    """Build the model and count."""
    from mmengine.registry import MODELS, init_default_scope

    from vik_mm.config import load_config

    cfg = load_config(args.config, args.cfg_options, is_safe=args.safe_config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    height, width = args.shape[0], args.shape[-1]
    parameters, macs = count(MODELS.build(cfg.model), height, width)
    print(f'{args.config} at {height}x{width}: {parameters / 1e6:.3f} M parameters, {macs / 1e9:.3f} GMACs')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
