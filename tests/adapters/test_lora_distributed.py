"""The low-rank layer under DistributedDataParallel, two processes over gloo."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmforget.adapters import LoRALinear


def build(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        LoRALinear(nn.Linear(6, 10), 2, 2.0), nn.ReLU(), LoRALinear(nn.Linear(10, 4), 2, 2.0)
    )
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.lora_B)
    return model.double()


def train(network, model, batches):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for x in batches:
        network(x).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def batches():
    """First as many rows as the sum needs, then so few that the thin products run."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (40, 2, 40, 2)]


def work(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    try:
        model = build(seed=rank)
        with torch.no_grad():
            model(batches()[0])  # Sums of weights that DDP is about to replace on rank 1.
        network = nn.parallel.DistributedDataParallel(model)
        halves = [x.chunk(2)[rank] for x in batches()]
        torch.save(train(network, model, halves), f'{folder}/rank_{rank}.pth')
    finally:
        dist.destroy_process_group()


@pytest.mark.slow  # Two processes import torch and MMEngine.
def test_two_processes_train_as_one(tmp_path):
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f'rank_{rank}.pth') for rank in range(2))
    model = build(seed=0)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    alone = train(model, model, batches())
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weight)
        assert torch.equal(weight, start[name]) == ('lora' not in name)
