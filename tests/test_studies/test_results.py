import csv

from study_runs import Events, module, train, value


def test_a_study_trains_all_its_runs_and_tells_of_each_what_made_it(read, tmp_path):
    runs = read()
    most = []
    ended, _ = train(runs, Events(lambda scheduler: most.append(len(scheduler.running))))
    assert ended and all(run.is_done for run in runs) and max(most) == 2
    module('report').write_report(runs, tmp_path / 'out')
    lines = list(csv.DictReader((tmp_path / 'out/results.csv').open()))
    assert [(line['row'], line['seed']) for line in lines] == [(row, s) for row in ('one', 'two') for s in '012']
    for line in lines:
        assert float(line['accuracy/top1']) == value(int(line['seed']))
        assert line['hardware'] == 'an abacus' and line['instruction_set'] == 'AVX2' and line['torch'] == '2.5.0'
        assert (line['epochs'], line['iterations'], line['threads'], line['sittings']) == ('6', '60', '1', '1')
        assert float(line['peak_mib']) > 1 and float(line['seconds']) > 0 and len(line['commit']) >= 7
        assert line['command'].startswith('python tools/train.py configs/vik/vik-demo_shapes.py --work-dir work_dirs/')
        assert str(tmp_path) not in line['command'] and f'randomness.seed={line["seed"]}' in line['command']


def test_the_table_has_mean_standard_deviation_of_n_minus_1_and_n(read, tmp_path):
    runs = read(rows=[dict(name='one', label='first'), dict(name='two', seeds=[5])])
    train(runs)
    text = module('report').write_report(runs, tmp_path / 'out')
    values = [value(seed) for seed in (0, 1, 2)]
    mean = sum(values) / 3
    deviation = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert f'| first | {mean:.2f} | {deviation:.2f} | 3 | {", ".join(f"{v:.2f}" for v in values)} |' in text
    assert f'| two | {value(5):.2f} |  | 1 |' in text
    assert text == (tmp_path / 'out/results.md').read_text()
    for name in ('dots', 'curves'):
        assert (tmp_path / f'out/{name}.png').stat().st_size > 5000
        assert 'first' in (tmp_path / f'out/{name}.svg').read_text()


def test_best_takes_the_best_validation_and_lower_may_be_better(read):
    figures = [dict(name='accuracy/top1', better='lower'), 'accuracy/top5']
    runs = read(which='best', figure=figures, rows=[dict(name='one')], seeds=3)
    train(runs)
    assert runs[0].result['figures']['accuracy/top1'] == dict(value=value(3, 1), step=1)
