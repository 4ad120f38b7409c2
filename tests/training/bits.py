"""Six runs of 200 steps whose results are stored, and a probe of this machine's arithmetic.

`python tests/training/bits.py` writes bits.json anew; it should never be needed: the digests in it were made
by the code before version 2, and a change of them is a change of what has been measured.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from ocr_interp.configuration import version_1
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.storage.tables import csv_bytes
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train

FILE = Path(__file__).with_name("bits.json")
TASK = FactRecallTask(4, 1, 3, n_noise=3, seq_len=6)
_DESCENT = {"data": "noise_free", "optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0}
CASES = {
    "factorized": (ModelConfig(d_head=8), {}),
    "non_factorized": (ModelConfig(ov="non_factorized"), {}),
    "factorized_softmax": (ModelConfig(d_head=8, attention="softmax"), {}),
    "non_factorized_softmax_frozen": (
        ModelConfig(ov="non_factorized", attention="softmax", train_attention=False),
        {},
    ),
    "factorized_frozen_descent": (ModelConfig(d_head=8, train_attention=False, dtype="float64"), _DESCENT),
    "non_factorized_descent": (ModelConfig(ov="non_factorized", dtype="float64"), _DESCENT),
}


def trained(name):
    """The run of a case."""
    model, recipe = CASES[name]
    options = {"steps": 200, "batch_size": 24, "log_every": 10, "snapshots": 0, "device": "cpu", "seed": 3}
    return train(TASK, model, TrainConfig(**{**options, **recipe}), progress=False)


def digests(run):
    """SHA-256 of the history with the columns of version 1, and of the weights under its names."""
    # Before version 2 the weights of a map without factors were W_V.
    named = {"W_V" if name == "W_OV" else name: tensor for name, tensor in run.weights.tensors().items()}
    weights = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    history = csv_bytes(run.history.loc[:, list(version_1.COLUMNS)])
    return {"history": hashlib.sha256(history).hexdigest(), "weights": weights.hexdigest()}


def numbers(run):
    """The last row of the history, and entries of the weights from all over each tensor."""
    last = {name: float(run.history[name].iloc[-1]) for name in version_1.COLUMNS}
    entries = {
        name: tensor.flatten()[:: max(1, tensor.numel() // 7)].tolist()
        for name, tensor in run.weights.tensors().items()
    }
    return {"last": last, "entries": entries}


def probe():
    """A digest of what this machine computes from fixed numbers with the operations of training."""
    sha = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    sha.update(torch.backends.cpu.get_cpu_capability().encode())
    for dtype in (torch.float32, torch.float64):
        x = (torch.arange(28 * 8).mul(7919).remainder(1009).double() / 1009 - 0.5).to(dtype).reshape(28, 8)
        y = x.flip(0).mT.contiguous()
        product = x @ y
        stacked = torch.bmm(product[None], product[None].mT)
        tensors = [product, stacked, product.exp(), product.softmax(-1), torch.logaddexp(product, product.mT)]
        tensors.append(torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=dtype))
        parameter = torch.nn.Parameter(x.clone())
        parameter.grad = x.flip(1)
        torch.optim.AdamW([parameter], lr=0.01, fused=True).step()
        for tensor in [*tensors, parameter.detach()]:
            sha.update(tensor.numpy().tobytes())
        array = product.numpy()
        for found in (array @ array, np.exp(array), np.logaddexp(array, array.T), *np.linalg.svd(array)):
            sha.update(np.ascontiguousarray(found).tobytes())
    return sha.hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    runs = {name: trained(name) for name in CASES}
    content = {"probe": probe(), "runs": {name: {**digests(r), **numbers(r)} for name, r in runs.items()}}
    FILE.write_text(json.dumps(content, indent=1) + "\n")
