"""Exported files that a stranger made."""

import json

import pytest
import torch
from mmengine.config import Config

from vik_mm.config import end_safe_config, read_safe_config
from vik_mm.deploy import load_exported
from vik_mm.errors import BadInputError


class WritesWhenLoaded(torch.nn.Module):
    def forward(self, image: torch.Tensor):
        return image

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path, self.training = state[0], state[1]
        self.content = torch.from_file(state[0], True, 4, dtype=torch.float32).fill_(1.0)

    def __init__(self, path):
        super().__init__()
        self.path, self.content = path, torch.zeros(1)


@pytest.fixture
def program(tmp_path):
    """A TorchScript file that writes another when it is loaded."""
    torch.jit.save(torch.jit.script(WritesWhenLoaded(str(tmp_path / 'sentinel'))), str(tmp_path / 'program.ts'))
    return tmp_path / 'program.ts'


@pytest.fixture(autouse=True)
def trust_what_follows():
    yield
    end_safe_config()


def test_programs_run_when_they_are_loaded_and_are_refused_beside_a_safe_config(program, tmp_path):
    sentinel = tmp_path / 'sentinel'
    (tmp_path / 'config.json').write_text('{}')
    read_safe_config(tmp_path / 'config.json')
    for name in ('program.ts', 'library.aoti.pt2', 'graph.export.pt2'):
        (tmp_path / name).touch()
        with pytest.raises(BadInputError, match='is a program .* which --safe-config does not load'):
            load_exported(tmp_path / name)
    assert not sentinel.exists()
    end_safe_config()
    with pytest.raises(BadInputError, match='cannot be loaded as torchscript'):
        load_exported(program)
    assert sentinel.exists(), 'the program does nothing where nobody looks'


@pytest.mark.parametrize('tool', ['infer.py', 'test.py'])
def test_tools_refuse_programs_beside_a_safe_config(call_tool, make_config, program, tmp_path, tool):
    Config.fromfile(make_config('classification')).dump(tmp_path / 'config.json')
    (tmp_path / 'image.png').touch()
    more = ['image.png', '--out', 'out'] if tool == 'infer.py' else ['--work-dir', 'run']
    code, _ = call_tool(tool, 'config.json', program, *more, '--safe-config')
    assert 'is a program (torchscript), which --safe-config does not load' in str(code)
    assert not (tmp_path / 'sentinel').exists()


@pytest.mark.parametrize('place', ['../weights', 'absolute', 'link'])
def test_onnx_reads_no_file_but_its_own(tmp_path, place):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    (tmp_path / 'weights').write_bytes(bytes(16))
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'link').symlink_to(tmp_path / 'weights')
    weights = onnx.TensorProto(name='w', data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    # In an attribute of a node, where not only initializers are looked at.
    where = str(tmp_path / 'weights') if place == 'absolute' else place
    for key, value in dict(location=where, length='16').items():
        weights.external_data.add(key=key, value=value)
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, 1, [4]) for name in ('image', 'sum')]
    nodes = [helper.make_node('Constant', [], ['c'], value=weights), helper.make_node('Add', ['image', 'c'], ['sum'])]
    model = helper.make_model(helper.make_graph(nodes, 'graph', values[:1], values[1:]))
    helper.set_model_props(model, {'vik_mm.json': json.dumps({})})
    (folder / 'model.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match='which is not beside it'):
        load_exported(folder / 'model.onnx')
