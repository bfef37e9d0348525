"""Compile the Triton kernels for chips that need not be there, and read from the binaries what they take."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

os.environ.pop('TRITON_INTERPRET', None)  # read when Triton is imported
# Operators know PyTorch only. The rest of the package, with all it imports, would take most of this tool's time.
_package = types.ModuleType('vik_mm')
_package.__path__ = list(importlib.util.find_spec('vik_mm').submodule_search_locations)
sys.modules['vik_mm'] = _package

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vik_mm.ops.fourier_kan import triton as fourier_kan
from vik_mm.ops.launch import Chip, Launch
from vik_mm.ops.plus_conv import triton as plus_conv
from vik_mm.ops.rbf_kan import triton as rbf_kan

# Per processor: registers, shared memory in KB, warps and blocks; the last number: KB of shared memory of one block.
# CUDA C++ programming guide, "Features and Technical Specifications".
LIMITS = {
    75: (65536, 64, 32, 16, 64),
    80: (65536, 164, 64, 32, 163),
    86: (65536, 100, 48, 16, 99),
    89: (65536, 100, 48, 24, 99),
    90: (65536, 228, 64, 32, 227),
    100: (65536, 228, 64, 32, 227),
    120: (65536, 100, 48, 24, 99),
}
AMD = 'gfx942'
PROCESSORS = 132  # of the launches; no binary depends on them
# Name, dtype of the input, whether TF32 is allowed.
DTYPES = {
    'bf16': (torch.bfloat16, True),
    'fp16': (torch.float16, True),
    'tf32': (torch.float32, True),
    'fp32': (torch.float32, False),
}
POINTERS = {torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16'}
BINARIES = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
FIELDS = [
    'kernel', 'case', 'dtype', 'chip', 'rows', 'warps', 'stages',
    'registers', 'stack', 'shared', 'occupancy', 'instructions a row', 'special functions a row',
]  # fmt: skip


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device='meta')


def rbf(chip: Chip, dtype: torch.dtype, side: int, size: int = 56, features: int = 49) -> dict[str, Launch]:
    """ViK's patch step, or rows where ``side`` is 0."""
    x = empty(8, 64, size, size, dtype=dtype) if side else empty(4096, features, dtype=dtype)
    features = side**2 or features
    scale, table = empty(8, features), empty((8 + bool(side)) * features, features)
    problem = rbf_kan._Problem(chip, x, scale, scale, table, side)
    return dict(
        forward=problem.forward(x, empty(features) if side else None),
        backward_input=problem.backward_input(x, x)[0],
        backward_weight=problem.backward_weight(x)[0],
    )


def fourier(chip: Chip, dtype: torch.dtype, tokens: int, waves: int = 3) -> dict[str, Launch]:
    """KArAt's operator for a number of tokens."""
    x, out = empty(32, 3, tokens, tokens, dtype=dtype), empty(32, 3, tokens, 12, dtype=dtype)
    problem = fourier_kan._Problem(chip, x, empty(3, 2 * waves, tokens, 12))
    return dict(
        forward=problem.forward(out),
        backward_input=problem.backward_input(out, x),
        backward_weight=problem.backward_weight(out)[0],
    )


def plus(chip: Chip, dtype: torch.dtype, size: int) -> dict[str, Launch]:
    """ViK's axis step."""
    x, taps = empty(8, 64, size, size, dtype=dtype), empty(8, 64, 2, 3)
    return dict(
        forward=plus_conv._convolution(x, x, taps, empty(8, 64)),
        backward_input=plus_conv._convolution(x, x, taps, None),
        backward_weight=plus_conv._taps_gradient(chip, x, x)[0],
    )


CASES = {
    'rbf_kan patches 7x7': (rbf, dict(side=7)),
    'rbf_kan patches 7x7, cut': (rbf, dict(side=7, size=50)),
    'rbf_kan patches 4x4': (rbf, dict(side=4, size=8)),
    'rbf_kan rows of 49': (rbf, dict(side=0)),
    'fourier_kan 64 tokens, one wave': (fourier, dict(tokens=64, waves=1)),
    'fourier_kan 197 tokens': (fourier, dict(tokens=197)),
    'fourier_kan 577 tokens': (fourier, dict(tokens=577)),
    'plus_conv2d 56x56': (plus, dict(size=56)),
    'plus_conv2d 7x7': (plus, dict(size=7)),
}


def launches(case: str, chip: Chip, dtype: str) -> dict[str, Launch]:
    """Give the launches of a case, as the operators make them."""
    build, options = CASES[case]
    torch_dtype, torch.backends.cuda.matmul.allow_tf32 = DTYPES[dtype]
    return build(chip, torch_dtype, **options)


def compile_for(launch: Launch, target: GPUTarget):
    """Compile as a launch on that chip would."""
    signature, constants, hints = {}, dict(launch.constants), {}
    for index, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments.get(name)
        if name in launch.constants or value is None:
            signature[name] = 'constexpr'
            constants.setdefault(name, None)
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            hints[(index,)] = [['tt.divisibility', 16]]  # PyTorch aligns its memory
        else:
            signature[name] = 'i32'
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=hints)
    options = dict(num_warps=launch.num_warps, num_stages=launch.num_stages)
    return triton.compile(source, target=target, options=options)


def run(tool: str, *arguments: str) -> str:
    return subprocess.run([BINARIES / tool, *arguments], capture_output=True, text=True, check=True).stdout


def occupancy(chip: int, registers: int, shared: int, warps: int) -> float:
    """Share of a processor's warps that run at once."""
    all_registers, all_shared, all_warps, all_blocks, _ = LIMITS[chip]
    registers_of_block = -(-registers * 32 // 256) * 256 * warps
    reserved = 1024 if chip >= 80 else 0
    blocks = min(
        all_blocks,
        all_warps // warps,
        all_registers // registers_of_block,
        all_shared * 1024 // (shared + reserved or 1),
    )
    return blocks * warps / all_warps


def instructions_per_row(assembly: str, launch: Launch) -> dict:
    """Count a thread's instructions for a tile, those of the loop over Gaussians as often as it runs."""
    instructions, labels = [], {}
    for line in assembly.splitlines():
        if label := re.match(r'\s*(\.L_x_\d+):', line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r'\s*/\*[0-9a-f]{4,}\*/\s+(.*?);', line):
            instructions.append(instruction[1])
    loops = set()
    for end, text in enumerate(instructions):
        jump = re.search(r'\bBRA\b.*`\((\.L_x_\d+)\)', text)
        start = labels.get(jump[1], end) if jump else end
        if end - start > 8:  # the shortest are the trap behind the end
            loops.add((start, end))
    # The backward kernels have a loop over tiles outside of all others; what lies outside of it hardly counts.
    tiles = 0 if launch.kernel is rbf_kan.forward_kernel else 1
    times = {tiles: 1, tiles + 1: launch.constants['G']}
    counts = [times.get(sum(start <= i <= end for start, end in loops), 0) for i in range(len(instructions))]
    passes = launch.grid[1] if len(launch.grid) > 1 else 1  # over the input
    share = 32 * launch.num_warps * passes / launch.constants['BLOCK_R']
    special = sum(count for count, text in zip(counts, instructions) if 'MUFU' in text)
    return {
        'instructions a row': round(sum(counts) * share),
        'special functions a row': round(special * share),
    }


def nvidia_resources(launch: Launch, chip: int) -> dict:
    compiled = compile_for(launch, GPUTarget('cuda', chip, 32))
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(compiled.asm['cubin'])
        file.flush()
        usage = re.search(r'REG:(\d+) STACK:(\d+)', run('cuobjdump', '-res-usage', file.name))
        is_rbf = launch.kernel.__module__.startswith(rbf_kan.__package__)
        counts = instructions_per_row(run('nvdisasm', '-c', file.name), launch) if is_rbf else {}
    registers, stack, shared = int(usage[1]), int(usage[2]), compiled.metadata.shared
    share = occupancy(chip, registers, shared, launch.num_warps)
    return dict(registers=registers, stack=stack, shared=shared, occupancy=f'{share:.2f}', **counts)


def amd_resources(launch: Launch) -> dict:
    compiled = compile_for(launch, GPUTarget('hip', AMD, 64))
    text = compiled.asm['amdgcn']
    registers = max(int(n) for n in re.findall(r'\.vgpr_count:\s+(\d+)', text))
    stack = max(int(n) for n in re.findall(r'\.private_segment_fixed_size:\s+(\d+)', text))
    return dict(registers=registers, stack=stack, shared=compiled.metadata.shared)


def rows(chips: list[str], dtypes: list[str], cases: list[str]) -> Iterator[dict]:
    for case in cases:
        for dtype in dtypes:
            for name in chips:
                is_amd = name == AMD
                if (dtype == 'tf32' and (is_amd or int(name) < 80)) or (dtype == 'bf16' and name == '75'):
                    continue  # the chip has no such products
                if dtype == 'tf32' and case.startswith('plus'):
                    continue  # it has no products
                chip = Chip(94 if is_amd else int(name), PROCESSORS)
                for kernel, launch in launches(case, chip, dtype).items():
                    resources = amd_resources(launch) if is_amd else nvidia_resources(launch, int(name))
                    size = launch.constants.get('BLOCK_R', launch.constants.get('BLOCK'))
                    yield dict(
                        kernel=kernel, case=case, dtype=dtype, chip=name, rows=size,
                        warps=launch.num_warps, stages=launch.num_stages, **resources,
                    )  # fmt: skip
