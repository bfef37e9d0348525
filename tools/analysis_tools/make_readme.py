"""Write the tables of README.md from the metafile and the benchmark's CSV; --check says whether they agree."""

import argparse
import csv
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / 'README.md'


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


def models_table(meta) -> str:
    """What can be built, with counts of our own."""
    rows = []
    for model in meta['Models']:
        if model['Metadata']['Training Data'] == 'ImageNet-1k':
            data = model['Metadata']
            config = f'[{Path(model["Config"]).name}]({model["Config"]})'
            rows.append([model['Name'], f'{data["Parameters"] / 1e6:.2f}', f'{data["FLOPs"] / 1e9:.2f}', config])
    return markdown(['name for `get_model`', 'parameters, M', 'GMACs at 224', 'config'], rows)


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


def commands(meta) -> str:
    """How the measured results came about."""
    lines = []
    for model in meta['Models']:
        data = model['Metadata']
        if data.get('Source') == 'measured':
            lines.append(f'# {model["Name"]}: {data["Training Resources"]}\n{data["Command"]}')
    return '```bash\n' + '\n'.join(lines) + '\n```'


def bench_table(_) -> str:
    """Time and memory against the release's arithmetic."""
    with (ROOT / 'benchmarks/results/against_release_cpu.csv').open() as file:
        rows = list(csv.DictReader(file))
    body = [
        [
            row['case'],
            f'{float(row["speedup"]):.2f}x ({float(row["speedup_p25"]):.2f} - {float(row["speedup_p75"]):.2f})',
            f'{float(row["memory_ratio"]):.2f}x',
        ]
        for row in rows
    ]
    first = rows[0]
    note = (
        f'{first["device"]}, {first["threads"]} threads, torch {first["torch"]}, float32; '
        f'median and quartiles of {first["rounds"]} interleaved runs.'
    )
    return markdown(['case', 'speed-up', 'peak memory of a step'], body) + '\n\n' + note


TABLES = dict(paper=paper_table, models=models_table, measured=measured_table, commands=commands, bench=bench_table)


def render(text: str) -> str:
    """Fill every block between ``<!-- table: NAME -->`` and ``<!-- end -->``."""
    meta = yaml.safe_load((ROOT / 'configs/vik/metafile.yml').read_text())

    def fill(match):
        return f'{match[1]}\n{TABLES[match[2]](meta)}\n{match[3]}'

    return re.sub(r'(<!-- table: (\w+) -->).*?(<!-- end -->)', fill, text, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if the README is out of date')
    args = parser.parse_args()
    text = README.read_text()
    rendered = render(text)
    if args.check:
        if rendered != text:
            sys.exit('error: README.md does not agree with metafile.yml or the benchmark; run make readme')
        return
    README.write_text(rendered)


if __name__ == '__main__':
    main()
