"""ONNX files: how stages become one graph, and how a file is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vik_mm.errors import BadInputError

from .forms import Stage
from .programs import META, program_of, step

_AXES = {'image': ['batch', 'height', 'width', 3], 'normalised': ['batch', 3, 'height', 'width']}


def write_onnx(form: Any, path: Path, meta: dict[str, Any]) -> None:
    """Write a form of a model as one ONNX file.

    Args:
        form (RawForm | WholeForm): What goes into it.
        path (Path): The file.
        meta (dict[str, Any]): What it says about itself.
    """
    stages = form.stages(meta['dtype'])
    models = [_model_of(stage, meta) for stage in stages]
    with step('joining and writing'):
        model = _joined(stages, models)
        _name_axes(model.graph, meta)
        model.metadata_props.update(_plain(meta))
        model.metadata_props[META] = json.dumps(meta)
        import onnx_ir

        onnx_ir.save(model, str(path))


def _model_of(stage: Stage, meta: dict[str, Any]) -> Any:
    program: Any = program_of(stage)
    with step(f'translating {_what(stage)} to ONNX'):
        program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            verbose=False,
            # Takes as long as the rest, and saves no time in ONNX Runtime, which optimises what it loads. The
            # quantiser finds the weights of matrix products by it.
            optimize=meta['dtype'] == 'int8',
        )
        _tidy(program.model)
    return program.model


def _what(stage: Stage) -> str:
    return f'{stage.inputs[-1]} -> {stage.outputs[0]}' if len(stage.inputs) == 1 else f'... -> {stage.outputs[0]}'


def _tidy(model: Any) -> None:
    """Compute what is constant, and drop notes on where in the source each node comes from."""
    from onnxscript import optimizer

    optimizer.inline(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    for node in model.graph:
        node.metadata_props.clear()


def _joined(stages: list[Stage], models: list[Any]) -> Any:
    """One model whose stages take each other's outputs by name."""
    import onnx_ir

    known: dict[str, Any] = {}
    inputs, nodes, weights = [], [], []
    for k, (stage, model) in enumerate(zip(stages, models)):
        graph = model.graph
        outputs = list(graph.outputs)
        for name, value in zip(stage.inputs, list(graph.inputs)):
            if name in known:
                onnx_ir.convenience.replace_all_uses_with(value, known[name])
                outputs = [known[name] if out is value else out for out in outputs]
            else:
                value.name = known.setdefault(name, value).name
                inputs.append(value)
        stage_weights = list(graph.initializers.values())
        stage_nodes = list(graph)
        graph.outputs.clear()
        graph.inputs.clear()
        graph.remove(stage_nodes)
        graph.initializers.clear()
        for value in stage_weights:
            value.name = f'stage_{k}.{value.name}'
        for node in stage_nodes:
            # Names are of one stage, and so are the symbols in shapes: a runtime would take equal ones for equal sizes.
            # The count of axes stays, as runtimes need it to follow sizes.
            node.name = f'stage_{k}.{node.name}'
            for value in _values_of(node):
                value.name = f'stage_{k}.{value.name}'
                if value.shape is not None:
                    value.shape = onnx_ir.Shape([side if isinstance(side, int) else None for side in value.shape])
        known.update(zip(stage.outputs, outputs))
        nodes += stage_nodes
        weights += stage_weights
    final = [known[name] for name in stages[-1].outputs]
    for name, value in zip(stages[-1].outputs, final):
        value.name = name
    imports = {domain: version for model in models for domain, version in model.graph.opset_imports.items()}
    graph = onnx_ir.Graph(inputs, final, nodes=nodes, initializers=weights, opset_imports=imports, name='vik_mm')
    return onnx_ir.Model(graph, ir_version=models[0].ir_version, producer_name='vik_mm')


def _values_of(node: Any) -> Iterator[Any]:
    """A node's outputs, and those of the graphs within it."""
    yield from node.outputs
    for attribute in node.attributes.values():
        if attribute.type.name == 'GRAPH':
            yield from attribute.value.inputs
            for inner in attribute.value:
                yield from _values_of(inner)


def _name_axes(graph: Any, meta: dict[str, Any]) -> None:
    import onnx_ir

    (image,) = graph.inputs
    axes: list[Any] = list(_AXES[meta['input']])
    if meta['input'] == 'normalised' and meta['min_size'] == meta['max_size']:
        axes[2:] = meta['min_size']
    image.shape = onnx_ir.Shape(axes)
    shapes: dict[str, list[Any]] = dict(
        probabilities=['batch', None],
        label_map=['batch', 'height', 'width'],
        boxes=['batch', 'objects', 4],
        scores=['batch', 'objects'],
        labels=['batch', 'objects'],
        counts=['batch'],
        masks=['masks', 'height', 'width'],
        logits=['batch', None] if meta['task'] == 'classification' else ['batch', None, 'height', 'width'],
    )
    for out in graph.outputs:
        out.shape = onnx_ir.Shape(shapes.get(out.name, ['batch', None, None, None]))


def _plain(meta: dict[str, Any]) -> dict[str, str]:
    """What other programs look for, in the keys and the form that they read."""
    plain = dict(
        description=f'{meta["task"]}, by vik_mm {meta["vik_mm_version"]}',
        task=meta['task'],
        input=meta['layout'],
        outputs=', '.join(meta['outputs']),
    )
    if meta['classes'] is not None:
        plain['names'] = str(dict(enumerate(meta['classes'])))
    if meta.get('network_size'):
        plain['imgsz'] = str(meta['network_size'])
    for key, value in (meta.get('thresholds') or {}).items():
        plain[f'{key}_threshold'] = str(value)
    return plain


def read_onnx(path: Path) -> tuple[Any, str]:
    """Load a file; see :func:`vik_mm.deploy.load_exported`."""
    import onnx
    import onnxruntime

    for tensor in _onnx_tensors(onnx.load(path, load_external_data=False)):
        places = [entry.value for entry in tensor.external_data if entry.key == 'location']
        for place in places:
            # ONNX Runtime would read any file of this machine.
            if Path(place).name != place or (path.parent / place).is_symlink():
                raise BadInputError(f'it has weights in {place!r}, which is not beside it')

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])

    def run(image):
        return [torch.from_numpy(out) for out in session.run(None, {'image': image.cpu().numpy()})]

    return run, session.get_modelmeta().custom_metadata_map[META]


def _onnx_tensors(message: Any) -> Iterator[Any]:
    """Go through the tensors of an ONNX model, wherever they stand in it."""
    if message.DESCRIPTOR.name == 'TensorProto':
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            # A single message has fields of its own; several come as a sequence.
            for below in [value] if hasattr(value, 'ListFields') else value:
                yield from _onnx_tensors(below)


def quantise(path: Path) -> None:
    """Quantise the matrix products of an ONNX file to int8, in place."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the sizes of the traced images, which the quantiser would insist on
    draft = path.with_suffix('.float32.onnx')
    onnx.save(model, draft)
    try:
        # Only matrix products: convolutions of more than a pixel stay in float32.
        quantize_dynamic(draft, path, op_types_to_quantize=['MatMul', 'Gemm'], weight_type=QuantType.QInt8)
    finally:
        draft.unlink()
