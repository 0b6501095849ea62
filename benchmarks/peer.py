"""Reads a cohort through meds-torch-data; run by `loader.py` with the Python of an environment that holds it.

One process, one torch thread, `num_workers` 0, as ours. Values and times are read, static facts are not
(`static_inclusion_mode` omit), and measurements are one flat sequence (`batch_mode` SM): its fastest way to the same.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from meds_torchdata import MEDSPytorchDataset, MEDSTorchBatch, MEDSTorchDataConfig


def main() -> None:
    """Read so many samples; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", required=True, help="what MTD_preprocess wrote")
    parser.add_argument("--labels", required=True, help="folder of MEDS labels")
    parser.add_argument("--length", type=int, required=True, help="measurements a sample at most")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = MEDSTorchDataConfig(
        tensorized_cohort_dir=options.cohort,
        max_seq_len=options.length,
        task_labels_dir=options.labels,
        seq_sampling_strategy="to_end",
        static_inclusion_mode="omit",
        batch_mode="SM",
    )
    dataset = MEDSPytorchDataset(config, split="train")
    loader = dataset.get_dataloader(batch_size=options.batch, shuffle=True, num_workers=0)
    next(iter(loader))  # opens the files
    n_samples, read = 0, []
    began, cpu = time.perf_counter(), time.process_time()
    for batch in loader:
        n_samples += len(batch.code)
        read.append(batch.code)
        if n_samples >= options.samples:
            break
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    n_observations = sum(int((code != MEDSTorchBatch.PAD_INDEX).sum()) for code in read)
    found = {"samples": n_samples, "observations": n_observations, "seconds": seconds, "cpu_s": cpu_s}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
