"""Ranks of a real training: FSDP2 by tensor parallelism over gloo, saved as NeMo RL's DTensor workers save.

`python -m tests.fakes.nemo_rl_ranks BASE OUT RANK WORLD` is one rank; `save` starts them all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORLD = 4
TIMEOUT_S = 180


def save(base: Path, out: Path) -> None:
    """Write the model in *base*, sharded 2 by 2, as form A to `out/A` and as form B to `out/B`."""
    command = [sys.executable, "-m", "tests.fakes.nemo_rl_ranks", str(base), str(out)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(WORLD)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(WORLD)
    ]
    try:
        said = [rank.communicate(timeout=TIMEOUT_S)[0].decode(errors="replace") for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert not any(rank.returncode for rank in ranks), "\n".join(said)


def work(base: Path, out: Path, rank: int, world: int) -> None:
    """Be one rank."""
    import torch
    import torch.distributed as dist
    import transformers
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    plan = {f"model.layers.*.self_attn.{name}_proj": ColwiseParallel() for name in "qkv"}
    plan |= {f"model.layers.*.mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")}
    rows = {f"model.layers.*.{name}_proj": RowwiseParallel() for name in ("self_attn.o", "mlp.down")}
    parallelize_module(model, mesh["tp"], {**plan, **rows})
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    state = model.state_dict()
    save_distributed({"model": state}, checkpoint_id=out / "A")
    writer = HuggingFaceStorageWriter(
        path=str(out / "B"), save_distributed=True, fqn_to_index_mapping=dict.fromkeys(state, 1)
    )
    save_distributed(state, storage_writer=writer)
    dist.destroy_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
