"""Golden values of the parts of the mixer laboratory: how they are stored here, read and compared.

tests/data/mixers holds two files a part, ``{part}.npz`` and ``{part}.json``; tests/data/README.md says what is in them.
To make them from a folder of whole arrays: ``python tests/helpers/golden_parts.py ../shared/golden/mixers PART...``.
"""

import argparse
import importlib.util
import json
import math
import re
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).resolve().parent.parent / 'data'
SAMPLES = 4096  # values that are kept of an output or gradient


class GoldenPart:
    """What the original code of one part computes.

    Args:
        name (str): Name of the part.
        folder (Path): Where its files lie. Defaults to tests/data/mixers.

    Attributes:
        info (dict): The original's constructor, and shape of each tensor of its ``state_dict``.
        arrays (dict): Inputs, among them ``x``, the factors ``w`` of the loss ``(out * w).sum()``, and whatever else
            the part needs.
    """

    def __init__(self, name, folder=DATA / 'mixers'):
        self.info = json.loads((folder / f'{name}.json').read_text())
        self.arrays, self.measured = {}, {}
        with np.load(folder / f'{name}.npz') as stored:
            for key in stored.files:
                array, _, what = key.partition('/')
                if what == 'drawn':
                    seed, *shape = stored[key]
                    self.arrays[array] = torch.from_numpy(draw(seed, shape))
                elif what:
                    self.measured.setdefault(array, {})[what] = stored[key]
                else:
                    self.arrays[array] = torch.from_numpy(stored[key])

    def weights(self, module):
        """The original's state dict, as ``module`` is to be filled with it.

        What the rule of fill.py cannot make is among the arrays, or is as the constructor leaves it, here as there.
        """
        shapes = self.info['state_dict']
        kept = {name for name, shape in shapes.items() if not shape} | set(self.info.get('not_filled', ()))
        weights = load_fill().fill({name: torch.empty(shape) for name, shape in shapes.items() if name not in kept})
        from vik_mm.layers import original_name

        own = {original_name(module, name): value for name, value in module.state_dict().items()}
        for name in kept:
            value = self.arrays.get(name, own.get(name, torch.zeros(())))
            is_whole = value.numel() == math.prod(shapes[name])
            weights[name] = (value.reshape(shapes[name]) if is_whole else value.expand(shapes[name])).clone()
        return weights

    def check(self, array, value, bar):
        """Compare with the original's array: the difference is at most ``bar * max(1, max(abs(array)))``."""
        expected, value = self.measured[array], value.detach().double().numpy()
        assert value.shape == tuple(expected['shape'])
        bar = bar * max(1, float(expected['max']))
        difference = np.abs(sample(value) - expected['sample']).max()
        assert difference <= bar, f'{array} differs by {difference:.2g}, allowed are {bar:.2g}'
        # The values between the samples are seen by the norm.
        assert abs(norm(value) - expected['norm']) <= bar * value.size**0.5, f'the norm of {array} differs'


def draw(seed, shape):
    return np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32)


def sample(array):
    flat = array.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64)]


def norm(array):
    return float(np.linalg.norm(array.astype(np.float64)))


def load_fill():
    spec = importlib.util.spec_from_file_location('fill', DATA / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return fill


def pack(source, name, folder=DATA / 'mixers'):
    """Store a part of ``source``, where the arrays are whole."""
    found = [path for path in source.glob('*.npz') if re.fullmatch(rf'{name}_c\d+_\d+', path.stem)]
    if len(found) != 1:
        raise SystemExit(f'{source} has {len(found)} files {name}_c*_*.npz; name one of its parts')
    stored = {}
    with np.load(found[0]) as arrays:
        for key, array in arrays.items():
            seed = next((s for s in (0, 1) if np.array_equal(draw(s, array.shape), array)), None)
            if key == 'out' or key.startswith('grad_'):
                stored[f'{key}/shape'], stored[f'{key}/sample'] = array.shape, sample(array)
                stored[f'{key}/norm'], stored[f'{key}/max'] = norm(array), np.abs(array).max()
            elif seed is not None:
                stored[f'{key}/drawn'] = (seed, *array.shape)
            else:
                stored[key] = array
    np.savez_compressed(folder / f'{name}.npz', **stored)
    info = json.loads((source / f'{name}_keys.json').read_text())
    (folder / f'{name}.json').write_text(json.dumps(info, separators=(',', ':')) + '\n')


def main():
    parser = argparse.ArgumentParser(description='Store golden values of parts in tests/data/mixers.')
    parser.add_argument('source', type=Path, help='folder with PART_c*_*.npz and PART_keys.json')
    parser.add_argument('parts', nargs='+', metavar='PART')
    args = parser.parse_args()
    for part in args.parts:
        pack(args.source, part)


if __name__ == '__main__':
    main()
