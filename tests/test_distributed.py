"""Two processes over gloo must give what one process gives on the joint batch."""

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import vik_mm

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


def test_a_multi_node_launch_trains_one_model(tmp_path, shapes_config, run_tool):
    """Two 'nodes' of one process each, through dist_train.sh on loopback."""

    def node(rank):
        env = dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='127.0.0.1', PORT='29641')
        options = ('--work-dir', tmp_path / 'work', '--no-validate')
        return run_tool('dist_train.sh', shapes_config, 1, *options, env=env)

    with ThreadPoolExecutor(2) as pool:
        first, _ = pool.map(node, range(2))
    assert 'gloo' in first.text
    checkpoint = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    # 16 images over two processes in batches of 4: 2 iterations, where one process would take 4.
    assert checkpoint['meta']['iter'] == 2
