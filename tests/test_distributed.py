"""Two processes over gloo must give what one process gives on the joint batch."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import vik_mm
from vik_mm.checkpoints import read_checkpoint

IMAGES, SIZE = 4, 64


def build():
    torch.manual_seed(0)
    arch = dict(depths=(1, 1, 1), embed_dims=(8, 12, 16))
    return vik_mm.ViK(arch=arch, img_size=SIZE, layer_scale_init_value=1.0, out_indices=(0, 1, 2))


def images():
    return torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def loss(model, batch):
    return sum(m.square().mean() for m in model(batch))


def work(rank, world_size, store, out):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world_size)
    # An unused parameter would make this fail: DDP is told to look for none.
    model = DistributedDataParallel(build(), find_unused_parameters=False)
    share = IMAGES // world_size
    loss(model, images()[rank * share : (rank + 1) * share]).backward()
    loss(model, images()[rank * share : (rank + 1) * share]).backward()  # the second pass is where DDP complains
    torch.save({name: p.grad / 2 for name, p in model.module.named_parameters()}, f'{out}/{rank}.pth')
    dist.destroy_process_group()


def test_two_ddp_processes_give_the_gradients_of_the_joint_batch(tmp_path):
    mp.spawn(work, args=(2, tmp_path / 'store', tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    model = build()
    loss(model, images()).backward()
    assert first.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


SAVE_RANKS = """custom_imports = dict(imports=['vik_mm', 'save_ranks'], allow_failed_imports=False)
custom_hooks = [dict(type='SaveRanks')]
"""


def assert_equal_ranks(work):
    first, second = (torch.load(work / f'rank_{rank}.pth') for rank in range(2))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_dist_scripts_train_one_model_and_test_it(tmp_path, root, make_config, run_tool, free_port, task):
    config, work = make_config(task, SAVE_RANKS), tmp_path / 'work'
    env = dict(PORT=free_port, PYTHONPATH=f'{root}/tests/helpers:{root}')
    run_tool('dist_train.sh', config, 2, '--work-dir', work, '--no-validate', env=env)
    assert_equal_ranks(work)
    checkpoint = next(work.glob('[ei]*_*.pth'))
    trained, start = read_checkpoint(checkpoint), torch.load(work / 'rank_0.pth')
    assert trained['state_dict'].keys() == start.keys()
    if task != 'segmentation':
        assert trained['meta']['iter'] == 2  # 16 scenes over 2 processes in batches of 4
    if task != 'classification':
        return  # testing is the same code for all; tests/test_dense.py tests in one process
    result = run_tool('dist_test.sh', config, checkpoint, 2, '--work-dir', work, env=env)
    assert 'accuracy/top1' in result.text


@pytest.fixture
def networks():
    """Two network namespaces joined by one cable: commands that enter them, and the first one's address."""
    if shutil.which('ip') is None or os.geteuid() != 0:
        pytest.skip('network namespaces need root and iproute2')
    names = [f'vik{rank}-{os.getpid()}' for rank in range(2)]

    def ip(*words):
        return subprocess.run(['ip', *words], capture_output=True, text=True)

    try:
        for name in names:
            if (made := ip('netns', 'add', name)).returncode:
                pytest.skip(f'this machine makes no network namespaces: {made.stderr.strip()}')
        ip('link', 'add', 'cable', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'cable', 'netns', names[1])
        for rank, name in enumerate(names):
            ip('-n', name, 'addr', 'add', f'10.199.0.{rank + 1}/24', 'dev', 'cable')
            for device in ('lo', 'cable'):
                assert not ip('-n', name, 'link', 'set', device, 'up').returncode
        yield [('ip', 'netns', 'exec', name) for name in names], '10.199.0.1'
    finally:
        for name in names:
            ip('netns', 'del', name)


def test_two_nodes_train_one_model(tmp_path, root, make_config, run_tool, free_port, networks):
    """Two nodes of one process each, through dist_train.sh; nothing but the cable joins them."""
    config, work = make_config('classification', SAVE_RANKS), tmp_path / 'work'
    enter, address = networks
    unreachable = subprocess.run([*enter[1], 'ip', 'route', 'get', '192.0.2.1'], capture_output=True, text=True)
    assert unreachable.returncode != 0

    def node(rank):
        env = dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR=address, PORT=free_port, GLOO_SOCKET_IFNAME='cable')
        env['PYTHONPATH'] = f'{root}/tests/helpers:{root}'
        options = ('--work-dir', work, '--no-validate')
        return run_tool('dist_train.sh', config, 1, *options, env=env, prefix=enter[rank])

    with ThreadPoolExecutor(2) as pool:
        first, _ = pool.map(node, range(2))
    assert 'gloo' in first.text
    assert_equal_ranks(work)


def test_no_thread_of_gloo_outlives_a_run(free_port):
    """One that did made finished runs end in SIGABRT, one in ten."""
    code = """
import atexit, glob
atexit.register(lambda: print('THREADS', sorted(open(f).read() for f in glob.glob('/proc/self/task/*/comm'))))
import torch
from mmengine.config import Config
from vik_mm.engine.runner import init_distributed

def main():
    init_distributed(Config(dict()), 'pytorch')
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model.itself = [model]  # a cycle, as a Runner has them
    model(torch.ones(1, 2)).sum().backward()

main()
"""
    env = {**os.environ, 'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': free_port}
    result = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (threads,) = [line for line in result.stdout.splitlines() if line.startswith('THREADS')]
    assert 'gloo' not in threads
