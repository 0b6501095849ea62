"""What trains of a pretrained encoder, and that the ways to make it cheap change no number."""

import copy
import json
import shutil
import sys

import pytest
import torch

from ehrdl.errors import ConfigError, MissingExtraError
from ehrdl.models.notes.backbone import configurations, without_weights
from ehrdl.models.notes.embedding_cache import encoder_hash
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained

LENGTHS = [64, 9, 33, 1, 40, 64, 17, 5]


@pytest.fixture
def make(family):
    def encoder(**options):
        torch.manual_seed(0)
        sizes = {"width": 16, "heads": 2, "dropout": 0.0, "token_dropout": 0.0}
        return NoteTransformer(family.spec, pretrained=Pretrained(family.folder, **options), **sizes)

    return encoder


def _still(encoder):
    """The encoder in training mode without the dropout that its family brings, so that two of them can be compared."""
    for module in encoder.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return encoder


def _step(encoder, batch):
    """One step; the names of the weights that it moved."""
    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    optimizer = torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=1.0)
    encoder(batch)[0].square().sum().backward()
    optimizer.step()
    return {name for name, weight in encoder.named_parameters() if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_an_encoder_that_is_tuned_starts_in_training_mode_with_its_own_dropout(make, family, tune):
    """transformers hands encoders over in evaluation mode, and Lightning would train them so."""
    if tune == "lora":
        pytest.importorskip("peft")
    encoder = make(tune=tune)
    assert all(module.training for module in encoder.modules())
    assert family.name == "modernbert" or not torch.equal(*(encoder(family.batch(LENGTHS))[0] for _ in range(2)))


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_an_encoder_is_built_again_without_its_folder_for_weights_of_a_checkpoint(family, tmp_path, tune):
    if tune == "lora":
        pytest.importorskip("peft")
    folder = shutil.copytree(family.folder, tmp_path / "encoder")
    options = {"pretrained": Pretrained(str(folder), tune, cache=None), "width": 16, "heads": 2}
    encoder, batch = NoteTransformer(family.spec, **options).eval(), family.batch(LENGTHS)
    known = json.loads(json.dumps(configurations(torch.nn.ModuleList([encoder]))))
    assert list(known) == [str(folder)]
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        NoteTransformer(family.spec, **options)
    with without_weights(known):
        again = NoteTransformer(family.spec, **options).eval()
    assert not torch.equal(again(batch)[0], encoder(batch)[0])
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(batch)[0], encoder(batch)[0])
    hashes = [encoder_hash(note.encoder, note.encoder.config.to_dict(), "float32") for note in (encoder, again)]
    assert hashes[0] == hashes[1]  # a frozen one finds its vectors again
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        NoteTransformer(family.spec, **options)


def test_full_tuning_moves_the_encoder_and_ours(make, family):
    encoder = make()
    moved = {name for name in _step(encoder, family.batch(LENGTHS)) if not name.startswith("link_pool")}
    assert moved == {name for name, _ in encoder.named_parameters() if not name.startswith("link_pool")}


def test_lora_starts_as_the_encoder_and_moves_adapters_and_ours_alone(make, family):
    pytest.importorskip("peft")
    encoder, batch = make(tune="lora", lora_rank=4), family.batch(LENGTHS)
    valid = batch.token_valid
    ours, plain = (module.eval().states(batch.tokens, valid, ~valid) for module in (encoder, make()))
    assert torch.allclose(ours, plain, atol=1e-5)
    _step(encoder.train(), batch)  # B starts at 0, so A moves from the second step on
    moved = _step(encoder, batch)
    adapters = {name for name, _ in encoder.encoder.named_parameters() if "lora_" in name}
    assert {name.removeprefix("encoder.") for name in moved if name.startswith("encoder.")} == adapters
    assert {name.partition(".")[0] for name in moved} == {"encoder", "token_pool", "link_pool"}
    n_targets = {"bert": 2, "roberta": 2, "modernbert": 1, "longformer": 4}[family.name]
    assert len(adapters) == 2 * n_targets * encoder.encoder.config.num_hidden_layers
    assert {weight.shape[0] for name, weight in encoder.named_parameters() if "lora_A" in name} == {4}


def test_adapters_start_from_scratch_so_they_train_at_the_full_rate(make):
    pytest.importorskip("peft")
    assert make(tune="lora").pretrained_parameters() == []


def test_a_checkpoint_with_adapters_loads_as_plain_weights(make, family, tmp_path):
    pytest.importorskip("peft")
    encoder, batch = make(tune="lora"), family.batch(LENGTHS)
    _step(encoder, batch)
    torch.save(encoder.state_dict(), tmp_path / "weights.pt")
    other = make(tune="lora")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other.eval()(batch)[0], encoder.eval()(batch)[0])


def test_without_peft_the_command_that_installs_it_is_named(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrdl\[lora\]'"):
        make(tune="lora")


@pytest.mark.parametrize("options", [{}, {"tune": "lora"}, {"padding": "packed"}], ids=str)
def test_checkpointing_gives_the_same_gradients(make, family, options):
    if "tune" in options:
        pytest.importorskip("peft")
    if "padding" in options and family.name == "longformer":
        pytest.skip("it cannot be packed")
    gradients, computed = [], []
    for checkpointed in (True, False):
        encoder = _still(make(gradient_checkpointing=checkpointed, **options))
        layers = [module for name, module in encoder.encoder.named_modules() if name.endswith(("layer.0", "layers.0"))]
        inside = next(module for module in layers[0].modules() if isinstance(module, torch.nn.LayerNorm))
        runs = []
        inside.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        encoder(family.batch(LENGTHS))[0].square().sum().backward()
        gradients.append([weight.grad for weight in encoder.parameters() if weight.grad is not None])
        computed.append(len(runs))
    assert len(gradients[0]) == len(gradients[1]) and computed[0] == 2 * computed[1]
    for checkpointed, plain in zip(*gradients, strict=True):
        assert torch.allclose(checkpointed, plain, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"tune": "lora"}, {"tune": "frozen", "cache": None}], ids=str)
def test_a_step_in_bfloat16_is_finite_and_near_that_in_single(make, family, options):
    if options.get("tune") == "lora":
        pytest.importorskip("peft")
    encoder, batch = _still(make(**options)), family.batch(LENGTHS)
    single = encoder(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(batch)[0]
        half.float().square().mean().backward()
    assert (half.float() - single).norm() < 0.03 * single.norm()
    gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_compiling_longformer_is_refused(families):
    family = families["longformer"]
    with pytest.raises(ConfigError, match="compile: longformer"):
        NoteTransformer(family.spec, heads=2, pretrained=Pretrained(family.folder, compile=True))


def test_compiling_without_a_compiler_is_refused_before_anything_is_trained(families, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("a GPU needs no C++ compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile: no C\+\+ compiler"):
        NoteTransformer(families["bert"].spec, heads=2, pretrained=Pretrained(families["bert"].folder, compile=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it meets on its way
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_compiled_encoder_gives_the_same_numbers_and_names(families, name):
    family = families[name]
    batches = [family.batch(LENGTHS), family.batch([30] * 16, seed=1), family.batch([11, 50] * 4, seed=2)]
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        try:
            used = Pretrained(family.folder, compile=compiled)
            encoder = NoteTransformer(family.spec, heads=2, pretrained=used).eval()
        except ConfigError as error:
            pytest.skip(str(error))
        outputs = [encoder(batch)[0] for batch in batches]
        sum(output.square().sum() for output in outputs).backward()
        gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
        found.append((outputs, gradients, list(encoder.state_dict())))
        assert torch.equal(copy.deepcopy(encoder).encoder.get_input_embeddings().weight, encoder.embeddings().weight)
    (outputs, gradients, names), (plain_outputs, plain_gradients, plain_names) = found
    assert names == plain_names
    for ours, plain in zip(outputs + gradients, plain_outputs + plain_gradients, strict=True):
        assert torch.allclose(ours, plain, atol=1e-3, rtol=1e-3)
