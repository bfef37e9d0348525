"""The command for owners of a GPU, and the comparison with committed rows."""

import csv
import json
import sys

import pytest
import torch

ROWS = [
    dict(contender='release', speedup='1', speedup_p25='1', speedup_p75='1', median_ms='50', p25_ms='48', p75_ms='52'),
    dict(contender='ViK', speedup='2', speedup_p25='1.9', speedup_p75='2.1', median_ms='25', p25_ms='24', p75_ms='26'),
]
KIND = dict(comparison='step', instruction_set='AVX2', cores='2', threads='2', dtype='float32', commit='abc')


@pytest.fixture
def bench(load_tool, root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'benchmarks')  # where a script finds its neighbours
    with torch._dynamo.config.patch(recompile_limit=8):  # what the script sets ends with the test
        yield load_tool('../benchmarks/bench.py')


@pytest.fixture
def gpu(load_tool):
    return load_tool('../benchmarks/gpu.py')


def python(code):
    return lambda out, smoke: [[sys.executable, '-c', code]]


@pytest.fixture
def call(gpu, monkeypatch, tmp_path, capsys):
    """Call the command with pieces of a few lines; of them 'b' fails while there is no file 'mended'."""
    (tmp_path / 'mended').unlink(missing_ok=True)
    fails = f"import os; print('out of memory'); raise SystemExit(not os.path.exists('{tmp_path}/mended'))"
    pieces = dict(
        a=gpu.Piece('first', python(f"print('one'); open('{tmp_path}/a', 'a').write('.')")),
        b=gpu.Piece('second', python(fails)),
        c=gpu.Piece('third', python("print('three')")),
        d=gpu.Piece('fourth', python("print('never')"), needs='no_such_package'),
    )
    monkeypatch.setattr(gpu, 'PIECES', pieces)

    def run(*arguments):
        code = gpu.run(gpu.parse_args(['--smoke', '--out', str(tmp_path / 'out'), *arguments]))
        results = (
            json.loads((tmp_path / 'out/pieces.json').read_text()) if (tmp_path / 'out/pieces.json').exists() else {}
        )
        return code, {name: (r['status'], r['last_line']) for name, r in results.items()}, capsys.readouterr().out

    return run


def test_each_piece_is_recorded_with_the_last_line_of_its_log(call, tmp_path):
    code, results, _ = call()
    assert code == 2
    assert results == dict(
        a=('done', 'one'),
        b=('failed', 'out of memory'),
        c=('done', 'three'),
        d=('failed', 'no_such_package is not installed'),
    )
    text = (tmp_path / 'out/summary.md').read_text()
    assert '| b | second | failed | 0 | out of memory |' in text


def test_a_second_call_goes_on_with_what_is_missing_or_failed(call, tmp_path):
    call()
    (tmp_path / 'mended').touch()
    code, results, _ = call()
    assert code == 1
    assert results['b'] == ('done', 'out of memory')
    assert (tmp_path / 'a').read_text() == '.'


def test_a_piece_that_is_named_runs_though_it_is_done(call, tmp_path):
    call('--piece', 'a')
    code, results, text = call('--piece', 'a')
    assert (code, list(results)) == (0, ['a'])
    assert (tmp_path / 'a').read_text() == '..'
    assert "missing: ['b', 'c', 'd']" in text


def test_the_time_stops_between_pieces(call):
    code, results, text = call('--time', '0s')
    assert (code, results) == (0, {})
    assert 'stopped before a' in text


def test_a_piece_that_takes_too_long_is_ended(call, gpu, monkeypatch):
    monkeypatch.setattr(gpu, 'LIMIT_S', 1)
    monkeypatch.setitem(gpu.PIECES, 'a', gpu.Piece('first', python('import time; time.sleep(60)')))
    _, results, _ = call('--piece', 'a')
    assert results == dict(a=('failed', 'took more than 1 s'))


def test_the_line_of_a_failed_piece_names_the_error_and_not_the_launcher(gpu):
    text = '[rank0]: AttributeError: no meta\nTraceback\nx.ChildFailedError:\n=====\nexitcode : 1\n====\nended: 1\n'
    assert gpu.telling_line(text, True) == '[rank0]: AttributeError: no meta'
    assert gpu.telling_line('done\nlast one\n\n', False) == 'last one'
    assert gpu.telling_line('', True) == ''


@pytest.mark.parametrize('arguments', [['--piece', 'none'], ['--time', 'soon']], ids=' '.join)
def test_a_wrong_argument_is_named(gpu, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        gpu.parse_args(arguments)
    assert error.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_without_a_gpu_the_command_says_what_to_do(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, 'has_gpu', lambda: False)
    with pytest.raises(gpu.BadInputError, match='no GPU here; --smoke'):
        gpu.run(gpu.parse_args(['--out', str(tmp_path)]))


def test_the_real_pieces_name_files_that_are_there(gpu, root, tmp_path):
    for piece in gpu.PIECES.values():
        for smoke in (True, False):
            for command in piece.commands(tmp_path, smoke):
                files = [word for word in command if word.endswith(('.py', '.sh'))]
                assert all((root / name).exists() for name in files), command


def test_the_operator_piece_runs_on_a_cpu_and_gives_shares_of_the_limit(gpu, tmp_path):
    assert gpu.run(gpu.parse_args(['--smoke', '--piece', 'operator-fp32', '--out', str(tmp_path)])) == 0
    with (tmp_path / 'operator-fp32.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['contender'] for row in rows} >= {'reference', 'chunked'}
    for row in rows:
        assert 0 < float(row['roofline']) < 1
        assert row['instruction_set']
        assert int(row['cores']) > 0
    assert '## operator-fp32' in (tmp_path / 'summary.md').read_text()


@pytest.mark.parametrize('suite', ['bars', 'scaling'])
def test_the_tiny_form_of_a_suite_runs_and_its_rows_say_the_instruction_set(bench, suite, tmp_path):
    bench.run(bench.parse_args([suite, '--tiny', '--rounds', '1', '--out', str(tmp_path / 'rows.csv')]))
    with (tmp_path / 'rows.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['contender'] for row in rows} == {'PoolFormer-S12', 'ViK-S', 'ViK-S, release'}
    assert all(row['instruction_set'] and int(row['cores']) > 0 for row in rows)


def test_a_suite_without_a_tiny_form_says_which_have_one(bench):
    with pytest.raises(bench.BadInputError, match='peers has no tiny form.*scaling'):
        bench.run(bench.parse_args(['peers', '--tiny']))


@pytest.mark.slow
def test_all_pieces_run_to_the_end_on_a_cpu(gpu, tmp_path):
    assert gpu.run(gpu.parse_args(['--smoke', '--out', str(tmp_path)])) == 0


class TestWatch:
    @pytest.fixture
    def report(self, load_tool, tmp_path):
        watch = load_tool('../benchmarks/watch.py')
        before = [row | KIND for row in ROWS]

        def compare(kind=None, **change):
            now = [row | KIND | (kind or {}) for row in ROWS]
            now[1] |= change
            return watch.report(now, before, tmp_path / 'now.csv')

        return compare

    def test_equal_rows_are_not_slower(self, report):
        assert report().startswith('Nothing got slower than the committed rows (2 compared; AVX2, 2 cores')

    def test_a_ratio_whose_quartiles_lie_below_is_slower(self, report):
        text = report(speedup='1.5', speedup_p25='1.4', speedup_p75='1.6')
        assert text.startswith('!!! 1 of 2 got slower')
        assert 'step, ViK: 2x (1.9 - 2.1) at abc, now 1.5x (1.4 - 1.6)' in text

    def test_a_ratio_whose_quartiles_overlap_is_noise(self, report):
        assert 'Nothing got slower' in report(speedup='1.8', speedup_p25='1.7', speedup_p75='1.95')

    @pytest.mark.parametrize('kind', [dict(instruction_set='AVX512'), dict(cores=8)], ids=str)
    def test_another_kind_of_machine_is_not_compared(self, report, kind):
        text = report(kind)
        assert text.startswith('No committed row is of this kind of machine')
        assert 'git add -f' in text

    def test_the_committed_rows_are_read_from_the_last_commit(self, load_tool, root):
        rows = load_tool('../benchmarks/watch.py').committed_rows(root / 'benchmarks/results')
        if not (root / '.git').exists():
            pytest.skip('needs the repository')
        assert any(row['contender'] == 'ViK' for row in rows)


def test_tables_print_the_instruction_set_where_a_row_says_it(load_tool, monkeypatch):
    tables = load_tool('analysis_tools/make_tables.py')
    (row, *rest) = tables.bench_rows('release')
    monkeypatch.setattr(tables, 'bench_rows', lambda suite: [row | dict(instruction_set='AVX2'), *rest])
    assert 'AMD EPYC with AVX2, 2 threads' in tables.bench_table('release')
