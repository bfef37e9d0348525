"""Write the tables of README.md and docs/ from metafiles and CSV files; with --check, only compare them."""

import argparse
import csv
import re
import sys
import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

# How tables call the metrics that have other names in MMPretrain's metafiles.
METRICS = {'Top 1 Accuracy': 'top-1', 'Top 5 Accuracy': 'top-5'}


def markdown(header: list[str], rows: list[list]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join('' if cell is None else str(cell) for cell in line) + ' |' for line in lines)


def paper_table(meta) -> str:
    """The authors' figures."""
    rows = [
        [f'**{name}**' if name == 'ViK-Small' else name, kind, *rest]
        for name, kind, *rest in meta['Collections'][0]['Metadata']['Paper Table']
    ]
    return markdown(['model', 'kind', 'parameters, M', 'GFLOPs', 'top-1, %'], rows)


def measured_table(meta) -> str:
    """What was trained here."""
    rows = []
    for model in meta['Models']:
        data = model['Metadata']
        if data.get('Source') == 'measured':
            (result,) = model['Results']
            config = f'[{Path(model["Config"]).stem}]({model["Config"]})'
            rows.append(
                [
                    config,
                    result['Dataset'],
                    f'{data["Parameters"] / 1e6:.2f}',
                    data['Epochs'],
                    data['Seed'],
                    f'{result["Metrics"]["Top 1 Accuracy"]:.2f}',
                    data['Training Time'],
                ]
            )
    return markdown(['config', 'data', 'parameters, M', 'epochs', 'seed', 'top-1, %', 'time'], rows)


def number(row: dict, field: str, digits: int, unit: str = '') -> str:
    """A figure of a CSV file's row, rounded; nothing where there is none."""
    return f'{float(row[field]):.{digits}f}{unit}' if row[field] else ''


SIZES = {'parameters_m': ' M', 'gmacs': ' GMACs'}


def bench_rows(suite: str) -> list[dict]:
    """What ``benchmarks/bench.py SUITE`` measured on a CPU."""
    with (ROOT / f'benchmarks/results/{suite}_cpu.csv').open() as file:
        return list(csv.DictReader(file))


def bench_table(suite: str) -> str:
    """Each contender against the first of its comparison, which has no row of its own."""
    rows = bench_rows(suite)
    baselines = {}
    for row in rows:
        baselines.setdefault(row['comparison'], row)

    def size(row):
        return ', '.join(number(row, field, 2, unit) for field, unit in SIZES.items() if row[field])

    def named(row):
        return f'{row["contender"]} ({size(row)})' if size(row) else row['contender']

    body = []
    for row in rows:
        baseline = baselines[row['comparison']]
        if row is not baseline:
            quartiles = f'{number(row, "speedup_p25", 2)} - {number(row, "speedup_p75", 2)}'
            speed = f'{number(row, "speedup", 2)}x ({quartiles})'
            memory = number(row, 'memory_ratio', 2, 'x')
            body.append([row['comparison'], named(row), baseline['contender'], speed, memory])
    first = rows[0]
    # Rows measured before the column was there do not say it.
    instruction_set = f' with {first["instruction_set"]}' if first.get('instruction_set') else ''
    note = (
        f'{first["device"]}{instruction_set}, {first["threads"]} threads, torch {first["torch"]}, '
        f'{first["dtype"]}; median and quartiles of interleaved runs, commit {first["commit"]}.'
    )
    header = ['comparison', 'contender', 'against', 'speed-up', 'peak memory']
    names = {row['contender'] for row in baselines.values()}
    if len(names) == 1:
        sizes = '; '.join(dict.fromkeys(size(row) for row in baselines.values() if size(row)))
        note = f'All compared with {first["contender"]}{f" ({sizes})" if sizes else ""}. {note}'
    keep = [
        i for i, name in enumerate(header) if any(line[i] for line in body) and (name != 'against' or len(names) > 1)
    ]
    return markdown([header[i] for i in keep], [[line[i] for i in keep] for line in body]) + '\n\n' + note


def models_of(folder: str) -> list[dict]:
    """Models of a metafile."""
    return yaml.safe_load((ROOT / f'configs/{folder}/metafile.yml').read_text())['Models']


def length_of(data: dict) -> str | None:
    """How long a model was trained."""
    units = {'Epochs': 'epochs', 'Iterations': 'iterations'}
    return next((f'{data[key]} {unit}' for key, unit in units.items() if key in data), None)


def karat_models(source: str) -> list[dict]:
    """Models of the metafile whose results are from a source."""
    return [model for model in models_of('karat') if model['Metadata']['Source'] == source]


def karat_measured(meta) -> str:
    """What was trained here, and the ViK that goes with it."""
    vik = [model for model in meta['Models'] if model['Name'] == 'vik-tiny-5m_cifar10']
    table = measured_table(dict(Models=karat_models('measured') + vik))
    return table.replace('](configs/', '](../configs/')


def karat_table() -> str:
    """What the KArAt paper prints, a row for each model, and what its configs build."""
    models = karat_models('paper')
    rows, data = {}, list(dict.fromkeys(model['Metadata']['Training Data'] for model in models))
    for model in models:
        (result,) = model['Results']
        name = model['Name'].rsplit('_', 1)[0]
        row = rows.setdefault(name, [f'{name}_*.py', f'{model["Metadata"]["Parameters"] / 1e6:.2f}', *[''] * len(data)])
        row[2 + data.index(result['Dataset'])] = f'{result["Metrics"]["Top 1 Accuracy"]:.2f}'
    return markdown(['configs/karat/', f'parameters, M, {data[0]}', *data], list(rows.values()))


def zoo_entry(model: dict) -> dict:
    """Give the models of all metafiles one form; all those of detection and segmentation have been measured."""
    data = model.get('Metadata', model)
    (result,) = model.get('Results') or [dict(Metrics=model.get('Metrics', {}))]
    source = data.get('Source', 'measured' if 'Metrics' in model else None)
    command = data.get('Command')
    if command is None:
        header = (ROOT / model['Config']).read_text().split('_base_')[0]
        command = '\n'.join(re.findall(r'^#   (.+)', header, re.MULTILINE))
        if source == 'measured':
            command += f' --cfg-options randomness.seed={data["Seed"]}'
    columns = {
        'name, config': f'[{model["Name"]}](CONFIGS/{model["Config"]})',
        'parameters, M': f'{data["Parameters"] / 1e6:.2f}',
        'GMACs': f'{data["FLOPs"] / 1e9:.2f}' if 'FLOPs' in data else None,
        'length': length_of(data),
        **{f'{METRICS.get(name, name)}, %': value for name, value in result['Metrics'].items()},
        'time': data.get('Training Time'),
    }
    return dict(
        source=source,
        data=data.get('Training Data') or data['Data'],
        columns=columns,
        command=command.replace(model['Config'], 'CONFIG'),
    )


def zoo(source: str | None, *folders: str) -> str:
    """A table for each data set of the models whose results are from a source; below them the commands, each once."""
    entries = [zoo_entry(model) for folder in folders for model in models_of(folder)]
    entries = [entry for entry in entries if entry['source'] == source]
    letters = dict(zip(dict.fromkeys(entry['command'] for entry in entries), 'ABCDEFGH'))
    blocks = []
    for data in dict.fromkeys(entry['data'] for entry in entries):
        group = [entry for entry in entries if entry['data'] == data]
        names = dict.fromkeys(name for entry in group for name in entry['columns'])
        names = [name for name in names if any(entry['columns'].get(name) is not None for entry in group)]
        rows = [[entry['columns'].get(name) for name in names] + [letters[entry['command']]] for entry in group]
        blocks += [f'**Data: {data}**', markdown([*names, 'command'], rows)]
    lines = []
    for command, letter in letters.items():
        wrapped = (textwrap.wrap(line, 76, break_on_hyphens=False) for line in command.splitlines())
        lines += [f'# {letter}', *(' \\\n    '.join(line) for line in wrapped)]
    return '\n\n'.join([*blocks, '```bash\n' + '\n'.join(lines) + '\n```'])


# The README's results: what was measured, by which metric, and the metafiles' models with what the table calls them.
RESULTS = [
    (
        'CIFAR-10, half of the training images, 12 epochs, top-1, %',
        'Top 1 Accuracy',
        {'vik-tiny_cifar10': 'ViK-Tiny'},
        {'vik-tiny-pooling_cifar10': 'pooling', 'vik-tiny-identity_cifar10': 'no mixer'},
    ),
    (
        'the same images, 5 epochs, 5.4 M parameters, top-1, %',
        'Top 1 Accuracy',
        {'vik-tiny-5m_cifar10': 'ViK'},
        {'vit-t_softmax_cifar10-32px': 'ViT', 'vit-t_g3b_cifar10-32px': 'ViT with KArAt'},
    ),
    (
        'car parts, Mask R-CNN, box AP50',
        'Box AP50',
        {'mask-rcnn_vik-t_carparts': 'ViK-Tiny', 'mask-rcnn_vik-t-noglobal_carparts': 'without global step'},
        {'mask-rcnn_vik-t-pooling_carparts': 'pooling', 'mask-rcnn_r18_carparts': 'ResNet-18'},
    ),
    (
        'car parts, RetinaNet, box AP50',
        'Box AP50',
        {'retinanet_vik-t_carparts': 'ViK-Tiny'},
        {'retinanet_vik-t-pooling_carparts': 'pooling', 'retinanet_r18_carparts': 'ResNet-18'},
    ),
    (
        'car parts, Semantic FPN, mIoU',
        'mIoU',
        {'fpn_vik-t_carparts': 'ViK-Tiny'},
        {'fpn_vik-t-pooling_carparts': 'pooling', 'fpn_r18_carparts': 'ResNet-18'},
    ),
    (
        'CamVid, Semantic FPN, mIoU in windows',
        'mIoU',
        {'fpn_vik-t_camvid': 'ViK-Tiny'},
        {'fpn_vik-t-pooling_camvid': 'pooling', 'fpn_r18_camvid': 'ResNet-18'},
    ),
]
# Its figures of speed: comparisons of `bench.py release`.
SPEEDS = {
    'vik-small inference 1x3x224x224': 'ViK-Small, inference, 1 image',
    'vik-small inference 8x3x224x224': 'ViK-Small, inference, 8 images',
    'vik-small training 8x3x224x224': 'ViK-Small, training step, 8 images',
}


def results_table(meta) -> str:
    """The README's ten rows: what the paper prints, what was trained here, speed against the release."""
    models = {
        model['Name']: model for folder in ('vik', 'karat', 'detection', 'segmentation') for model in models_of(folder)
    }

    def figures(names, metric):
        entries = {name: (models[name].get('Results') or [models[name]])[0] for name in names}
        return ', '.join(f'{names[name]} {entry["Metrics"][metric]}' for name, entry in entries.items())

    paper = {name: top1 for name, *_, top1 in meta['Collections'][0]['Metadata']['Paper Table']}
    neighbours = ', '.join(f'{name} {paper[name]}' for name in ('PVT-Tiny', 'ResMLP-S12'))
    body = [
        ['ImageNet-1K, top-1, %, printed by the paper', f'ViK-Small {paper["ViK-Small"]}', neighbours, 'none printed']
    ]
    for what, metric, ours, others in RESULTS:
        body.append([what, figures(ours, metric), figures(others, metric), 'one seed'])
    for row in bench_rows('release'):
        if row['contender'] == 'ViK' and row['comparison'] in SPEEDS:
            on = f' with {row["instruction_set"]}' if row.get('instruction_set') else ''
            speed = f'{number(row, "speedup", 2)}x as fast{on}, {number(row, "memory_ratio", 2)}x the memory'
            spread = f'quartiles {number(row, "speedup_p25", 2)} - {number(row, "speedup_p75", 2)}'
            body.append([SPEEDS[row['comparison']], speed, 'the release', spread])
    return markdown(['result', 'ViK', 'beside it', 'spread'], body)


def sweep_sentence() -> str:
    """How many families of detectors and segmentors train and predict with a swapped backbone."""
    with (ROOT / 'docs/data/swap_sweep.csv').open() as file:
        rows = list(csv.DictReader(file))
    passed = [row['package'] for row in rows if row['result'] == 'passes']
    failed = [f'{row["package"]} {row["family"]} ({row["reason"]})' for row in rows if row['result'] != 'passes']
    sentence = (
        f'**{len(passed)} of {len(rows)} families pass**: {passed.count("mmdet")} of MMDetection and '
        f'{passed.count("mmseg")} of MMSegmentation ([all of them, with their configs](data/swap_sweep.csv)).'
    )
    return '\n'.join(textwrap.wrap(sentence + ''.join(f' {text} fails.' for text in failed), 120))


def resolution_table() -> str:
    """What trained models do on test images of other sizes: a row for each figure, a column for each size."""
    with (ROOT / 'docs/data/resolution.csv').open() as file:
        rows = list(csv.DictReader(file))
    ratios = sorted({float(row['ratio']) for row in rows})
    lines = {}
    for row in rows:
        percent = float(row['value']) * (1 if row['metric'].startswith('accuracy') else 100)
        cells = lines.setdefault((Path(row['config']).stem, row['metric'], row['global step']), {})
        cells[float(row['ratio'])] = f'{percent:.1f}'
    # At the size of training both are the same model.
    body = [[*key, *(cells.get(ratio, '') for ratio in ratios)] for key, cells in lines.items()]
    return markdown(['config', 'metric, %', 'global step', *(f'{ratio:g}x' for ratio in ratios)], body)


def kernel_rows(case: str) -> list[dict]:
    """What ``kernel_resources.py`` read from the binaries of a case."""
    with (ROOT / 'docs/data/kernel_resources.csv').open() as file:
        return [row for row in csv.DictReader(file) if row['case'] == case]


def kernels_table() -> str:
    """What the compiled Triton kernels take on two chips."""
    with (ROOT / 'docs/data/kernel_resources.csv').open() as file:
        rows = list(csv.DictReader(file))
    cells = {}
    for row in rows:
        texts = cells.setdefault((row['case'], row['kernel'].replace('_', ', '), row['dtype']), {})
        texts[row['chip']] = [row['registers'], row['stack'], row['shared'], f'{100 * float(row["occupancy"]):.0f} %']
    body = [
        [*key, *(f'{a} / {b}' for a, b in zip(texts['80'], texts['90'], strict=True))] for key, texts in cells.items()
    ]
    header = ['operator', 'kernel', 'dtype', 'registers', 'stack, bytes', 'shared memory, bytes', 'warps at once']
    return markdown(header, body) + '\n\nEach cell: sm_80 / sm_90.'


# Data sheets: bytes/s, multiply-adds/s with TF32 and with bfloat16, clocks/s of all processors together, at the clock
# of the rate of products. In a clock, a processor's threads take 128 instructions, 16 of them special functions.
CHIPS = {
    '80': ('A100', 2.04e12, dict(tf32=78e12, bf16=156e12), 108 * 1.41e9),
    '90': ('H100', 3.35e12, dict(tf32=247e12, bf16=495e12), 132 * 1.83e9),
}


def roofline_table() -> str:
    """What a row of the patch step takes, and the time in which two chips could do it at best."""
    maps = dict(forward=2, backward_input=3, backward_weight=2)  # that are read or written once
    padded = 9 * 64 * 64  # multiply-adds of a row: Gaussians and base branch, 49 columns padded to 64
    body = []
    for row in kernel_rows('rbf_kan patches 7x7'):
        if row['dtype'] == 'fp32':
            continue
        name, bandwidth, products, clocks = CHIPS[row['chip']]
        size = maps[row['kernel']] * 49 * (2 if row['dtype'] == 'bf16' else 4)
        work = [padded, size, int(row['special functions a row']), int(row['instructions a row'])]
        limits = [products[row['dtype']], bandwidth, 16 * clocks, 128 * clocks]
        times = [1e9 * amount / limit for amount, limit in zip(work, limits, strict=True)]
        cells = [f'{amount:,} / {time:.2f}' for amount, time in zip(work, times, strict=True)]
        body.append([name, row['dtype'], row['kernel'].replace('_', ', '), *cells, f'{max(times):.2f}'])
    header = ['chip', 'dtype', 'kernel', 'multiply-adds', 'bytes', 'special functions', 'instructions', 'ns a row']
    return markdown(header, body) + "\n\nEach cell: amount for a row / time in ns at the chip's limit."


def environments_table(_) -> str:
    """What the suite ran in; ``.ci/matrix`` writes the rows. Sets of packages are listed once, below the table."""
    with (ROOT / 'docs/data/environments.csv').open() as file:
        rows = list(csv.DictReader(file))
    letters = dict(zip(dict.fromkeys(row['packages'] for row in rows), 'ABCDEFGH'))
    body = []
    for row in rows:
        family = 'OneDL' if row['packages'].startswith('onedl-') else 'OpenMMLab'
        tests = f'{row["passed"]} passed, {row["skipped"]} skipped'
        if int(row['failed']):
            tests = f'**{row["failed"]} failed**, {tests}'
        packages = f'{family}, {letters[row["packages"]]}'
        body.append([row['python'], row['torch'], packages, row['operators of mmcv'], tests, row['commit']])
    table = markdown(['Python', 'PyTorch', 'mm packages', "MMCV's operators", 'tests', 'commit'], body)
    return '\n'.join([table, '', *(f'- {letter}: {packages}' for packages, letter in letters.items())])


TABLES = dict(
    environments=environments_table,
    results=results_table,
    paper=paper_table,
    bench=lambda _: bench_table('release'),
    operator=lambda _: bench_table('operator'),
    kernels=lambda _: kernels_table(),
    roofline=lambda _: roofline_table(),
    scaling=lambda _: bench_table('scaling'),
    peers=lambda _: bench_table('peers'),
    downstream=lambda _: bench_table('downstream'),
    attention=lambda _: bench_table('karat'),
    karat=lambda _: karat_table(),
    karat_measured=karat_measured,
    sweep=lambda _: sweep_sentence(),
    resolution=lambda _: resolution_table(),
    zoo_classification=lambda _: zoo('measured', 'vik', 'karat'),
    zoo_detection=lambda _: zoo('measured', 'detection'),
    zoo_segmentation=lambda _: zoo('measured', 'segmentation'),
    zoo_paper=lambda _: zoo('paper', 'vik', 'karat'),
    zoo_no_result=lambda _: zoo(None, 'vik', 'karat'),
)


def render(page: Path) -> str:
    """Fill every block between ``<!-- table: NAME -->`` and ``<!-- end -->``."""
    meta = yaml.safe_load((ROOT / 'configs/vik/metafile.yml').read_text())
    to_root = '..' if page.parent != ROOT else '.'

    def fill(match):
        return f'{match[1]}\n{TABLES[match[2]](meta).replace("CONFIGS", to_root)}\n{match[3]}'

    return re.sub(r'(<!-- table: (\w+) -->).*?(<!-- end -->)', fill, page.read_text(), flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if a page is out of date')
    args = parser.parse_args()
    stale = [page for page in PAGES if render(page) != page.read_text()]
    if args.check and stale:
        sys.exit(f'{", ".join(page.name for page in stale)} differ from what they are made of: run make tables')
    for page in stale:
        page.write_text(render(page))


if __name__ == '__main__':
    main()
