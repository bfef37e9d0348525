"""Make the files to hand out of a training's checkpoint: weights, classes and what made them, and nothing else.

    python tools/model_converters/publish.py work_dirs/vik-s_in1k/epoch_310.pth vik-s_in1k

writes ``vik-s_in1k-<hash>.pth`` and ``vik-s_in1k-<hash>.safetensors``; the hash is the beginning of the file's SHA-256,
which ``torch.hub`` can check. Both load wherever the checkpoint does.
"""

import argparse
import hashlib
import io
from pathlib import Path

from vik_mm_cli.command_line import check_checkpoint, parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint of tools/train.py')
    parser.add_argument('dst', help='path and name, without ending, of what to write')
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='take the plain weights, if there are averaged ones too (default: the averaged ones)',
    )
    return parse(parser, argv, lambda args: check_checkpoint(args.src))


def run(args):
    """Write both files."""
    import torch

    import vik_mm
    from vik_mm.checkpoints import read_checkpoint
    from vik_mm.checkpoints.digests import sign_archive

    checkpoint = read_checkpoint(args.src)
    weights = choose_weights(checkpoint, args.no_ema)
    given = checkpoint.get('meta') or {}
    classes = (given.get('dataset_meta') or {}).get('classes')
    meta = dict(vik_mm_version=vik_mm.__version__, epoch=given.get('epoch'), iter=given.get('iter'))
    if classes is not None:
        meta['dataset_meta'] = dict(classes=list(classes), palette=plain(given['dataset_meta'].get('palette')))
    buffer = io.BytesIO()
    torch.save(dict(state_dict=weights, meta=meta), buffer)
    content = b''.join(sign_archive(buffer.getvalue()))
    try:
        for path in (hand_out(args.dst, '.pth', content), publish_safetensors(args.dst, weights, meta)):
            print(f'{path}  {path.stat().st_size / 2**20:.1f} MiB')
    except OSError as error:
        raise BadInputError(f'{args.dst} cannot be written ({error.strerror})') from error


def choose_weights(checkpoint, no_ema):
    """Choose the averaged weights, or the plain."""
    from vik_mm.checkpoints import unwrap_state_dict

    if 'ema_state_dict' in checkpoint:
        # MMEngine stores the averages where others store the weights, and these where others store the averages.
        chosen = checkpoint['ema_state_dict'] if no_ema else checkpoint['state_dict']
        return {name.removeprefix('module.'): value for name, value in chosen.items() if name != 'steps'}
    return unwrap_state_dict(checkpoint, prefer_ema=not no_ema)[0]


def plain(value):
    """Turn tuples and NumPy numbers into what JSON knows."""
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.item() if hasattr(value, 'item') else value


def hand_out(stem, ending, content):
    """Write a file whose name holds its hash."""
    from vik_mm.checkpoints.atomic_files import write_atomically

    path = Path(f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{ending}')
    write_atomically(content, path)
    return path


def publish_safetensors(stem, weights, meta):
    """Write the same as safetensors."""
    from vik_mm.checkpoints import write_safetensors

    draft = Path(f'{stem}.draft.safetensors')
    write_safetensors(weights, meta, draft)
    path = hand_out(stem, '.safetensors', draft.read_bytes())
    draft.unlink()
    return path


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
