"""A config names classes; the parser yields factories; the data call them."""

from collections.abc import Callable

import pytest
import yaml
from jsonargparse import ArgumentParser

from ehrdl.batch import DataSpec
from ehrdl.models.base import Network
from ehrdl.models.fusion.simple import GatedFusion
from ehrdl.models.head import LinearHead, MlpHead

YAML = """
model:
  class_path: ehrdl.models.networks.multimodal.MultimodalModel
  init_args:
    note:
      class_path: ehrdl.models.notes.transformer.NoteTransformer
      init_args: {width: 32, layers: 1, heads: 2}
    series:
      class_path: ehrdl.models.series.gru.SeriesGRU
      init_args: {hidden: 32, bin_hours: 6}
    fusion:
      class_path: ehrdl.models.fusion.simple.GatedFusion
      init_args: {width: 24}
    head:
      class_path: ehrdl.models.head.LinearHead
"""


def _run(model: Callable[[DataSpec], Network]) -> None:
    """What the command line would call."""


def _parse(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(_run, sub_configs=True)
    return parser.instantiate(parser.parse_args(list(arguments))).model


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    return str(path)


def test_nested_yaml_builds_the_model(spec, config):
    model = _parse("--config", config)(spec)
    assert (model.note.width, model.series.width, model.series.n_bins, model.fusion.width) == (32, 32, 8, 24)
    assert isinstance(model.head, LinearHead)


def test_override_on_the_command_line_reaches_a_nested_encoder(spec, config):
    model = _parse("--config", config, "--model.init_args.series.init_args.hidden=256")(spec)
    assert model.series.width == 256
    assert model.series.n_bins == 8


def test_model_alone_uses_the_defaults(spec, random_batch, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel"}}))
    model = _parse("--config", str(path))(spec)
    assert isinstance(model.fusion, GatedFusion)
    assert isinstance(model.head, MlpHead)
    assert model(random_batch(4)).shape == (4, 2)


def test_default_encoder_can_be_overridden_without_naming_it(spec):
    model = _parse(
        "--model=ehrdl.models.networks.multimodal.MultimodalModel", "--model.init_args.series.init_args.hidden=48"
    )(spec)
    assert model.series.width == 48


@pytest.mark.parametrize(
    ("path", "option", "value"),
    [
        ("ehrdl.models.fusion.simple.GatedFusion", "width", 48),
        ("ehrdl.models.fusion.simple.ConcatFusion", "width", 48),
        ("ehrdl.models.fusion.cross_attention.CrossAttentionFusion", "width", 48),
        ("ehrdl.models.fusion.simple.LateFusion", "modality_dropout", 0.3),
    ],
)
def test_every_fusion_is_named_by_its_path_with_its_options(spec, random_batch, path, option, value):
    fusion = f"--model.init_args.fusion={path}", f"--model.init_args.fusion.init_args.{option}={value}"
    model = _parse("--model=ehrdl.models.networks.multimodal.MultimodalModel", *fusion)(spec)
    assert f"{type(model.fusion).__module__}.{type(model.fusion).__name__}" == path
    assert (model.fusion.width if option == "width" else model.fusion.drop.probability) == value
    assert model(random_batch(4)).shape == (4, 2)


def test_one_config_gives_a_model_for_each_choice_of_modalities(spec, config):
    make = _parse("--config", config)
    assert make(spec.only("note")).series is None
    assert make(spec.only("series")).note is None
