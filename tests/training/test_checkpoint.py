"""A checkpoint is there whole or not at all; where one is damaged the one before it serves, and that is reported."""

import pytest
import torch

from ehrdl.training.checkpoint import AtomicCheckpoints, read, resumable

WEIGHTS = {"a": torch.zeros(2, 3), "b": torch.ones(4)}


def save(path, step=1, weights=WEIGHTS, **more):
    AtomicCheckpoints().save_checkpoint({"state_dict": weights, "step": step} | more, path)


@pytest.fixture
def scratch(tmp_path):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path / ".fused-seed0"
    for step in (1, 2):
        save(folder / "last.ckpt", step)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def rot(path):
    """Change one byte of a tensor."""
    content = bytearray(path.read_bytes())
    at = content.index(torch.ones(4).numpy().tobytes())
    content[at + 1] ^= 0x40
    path.write_bytes(bytes(content))


def text(path):
    path.write_text("no checkpoint\n" * 40)


def test_the_checkpoint_before_is_kept_and_nothing_else(scratch):
    assert sorted(path.name for path in scratch.iterdir()) == ["before.ckpt", "last.ckpt"]
    assert [read(scratch / name)["step"] for name in ("before.ckpt", "last.ckpt")] == [1, 2]
    assert resumable(scratch, WEIGHTS, "fused-seed0") == scratch / "last.ckpt"


@pytest.mark.parametrize("damage", [cut, empty, rot, text])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(scratch, capsys, damage):
    damage(scratch / "last.ckpt")
    found = resumable(scratch, WEIGHTS, "fused-seed0")
    assert read(found)["step"] == 1
    line = f"fused-seed0: {scratch}/last.ckpt is damaged; the checkpoint before it is used\n"
    assert capsys.readouterr().err == line
    assert resumable(scratch, WEIGHTS, "fused-seed0") == found
    assert capsys.readouterr().err == ""


def test_a_kill_between_the_two_renames_leaves_the_one_before(scratch):
    (scratch / "last.ckpt").unlink()
    assert read(resumable(scratch, WEIGHTS, "fused-seed0"))["step"] == 1


def test_where_both_are_damaged_the_fit_starts_again(scratch, capsys):
    for name in ("last.ckpt", "before.ckpt"):
        cut(scratch / name)
    assert resumable(scratch, WEIGHTS, "fused-seed0") is None
    assert capsys.readouterr().err.splitlines()[-1].endswith("before.ckpt is damaged; this fit starts again")
    assert list(scratch.iterdir()) == []


def test_a_checkpoint_of_another_network_is_not_resumed(scratch, capsys):
    assert resumable(scratch, {"a": torch.zeros(2, 4), "b": torch.ones(4)}, "fused-seed0") is None
    assert "last.ckpt is of another network" in capsys.readouterr().err


def test_a_checkpoint_without_its_best_epoch_is_not_resumed(tmp_path, capsys):
    best = {"best": {"monitor": "tuning/auprc", "best_model_path": str(tmp_path / "gone" / "best.ckpt")}}
    save(tmp_path / "last.ckpt", callbacks=best)
    assert resumable(tmp_path, WEIGHTS, "fused-seed0") is None
    assert "last.ckpt needs best.ckpt, which is damaged or missing" in capsys.readouterr().err


def test_a_run_folder_may_be_moved(tmp_path):
    old = tmp_path / "old"
    state = {"dirpath": str(old), "best_model_path": f"{old}/best.ckpt", "best_k_models": {f"{old}/best.ckpt": 0.5}}
    save(old / "last.ckpt", callbacks={"best": state | {"monitor": "tuning/auprc"}})
    new = old.rename(tmp_path / "new")
    found = AtomicCheckpoints().load_checkpoint(new / "last.ckpt", weights_only=True)["callbacks"]["best"]
    assert found["dirpath"] == str(new)
    assert found["best_model_path"] == f"{new}/best.ckpt"
    assert found["best_k_models"] == {f"{new}/best.ckpt": 0.5}


def test_a_failed_write_leaves_the_last_checkpoint_and_no_part(scratch):
    class Full:
        def __reduce__(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save(scratch / "last.ckpt", 3, more=Full())
    assert sorted(path.name for path in scratch.iterdir()) == ["before.ckpt", "last.ckpt"]
    assert read(scratch / "last.ckpt")["step"] == 2
