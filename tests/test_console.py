"""The command vik-mm."""

import subprocess
import sys

import pytest

from vik_mm_cli.console import COMMANDS, main, tools_folder


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    written = capsys.readouterr()
    return end.value.code, written.out + written.err


def test_help_lists_each_command_with_what_it_does(capsys):
    code, text = call(capsys, '--help')
    assert code == 0
    for name, file in COMMANDS.items():
        assert (f'  {name} ' in text) == (tools_folder() / file).is_file()
    assert 'Test a model of any task' in text


@pytest.mark.parametrize(
    'given, told', [('evalute', 'did you mean evaluate?'), ('xyz', 'it has train, test')], ids=['near', 'far']
)
def test_an_unknown_command_is_named_with_what_there_is(capsys, given, told):
    code, text = call(capsys, given)
    assert code == 2 and f'vik-mm has no command {given!r}; {told}' in text


@pytest.mark.parametrize('name', ['train', 'test', 'infer', 'export', 'evaluate'])
def test_usage_says_the_command_as_it_was_typed(capsys, name, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['vik-mm'])
    code, text = call(capsys, name, '--help')
    assert code == 0 and text.startswith(f'usage: vik-mm {name} ')


def test_help_and_version_import_no_torch():
    check = (
        'import sys; from vik_mm_cli.console import main; main(["--version"])\n'
        'try: main(["evaluate", "--help"])\n'
        'except SystemExit: pass\n'
        'assert not {"torch", "mmengine", "numpy"} & set(sys.modules)'
    )
    result = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('vik-mm ')


def test_an_error_of_a_command_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['vik-mm'])
    code, _ = call(capsys, 'train', 'vik_mm::vik/nothing.py')
    assert code.startswith('error: config vik_mm::vik/nothing.py does not exist; vik/ has ')
