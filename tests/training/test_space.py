"""The search space of a configuration: what is taken, what is refused in one line, which keys are whose."""

import pytest

from ehrdl.errors import ConfigError
from ehrdl.options.search import Choice, Range, TuneOptions, with_values


def searched(space, baseline=None, **options):
    return TuneOptions(space=space, **options).searched(baseline)


def test_numbers_choices_and_whole_numbers_are_told_apart():
    found = searched(
        {
            "optim.lr": {"low": "1e-4", "high": 1e-2, "log": True},  # YAML reads 1e-4 as a word
            "data.batch.size": {"low": 16, "high": 64, "step": 16},
            "model.init_args.series": {"choices": [{"class_path": "a.B"}, {"class_path": "a.C"}]},
        }
    )
    assert found["optim.lr"] == Range(0.0001, 0.01, log=True)
    assert found["data.batch.size"].whole and not found["optim.lr"].whole
    assert found["model.init_args.series"] == Choice(({"class_path": "a.B"}, {"class_path": "a.C"}))


def test_a_baseline_searches_its_own_keys_and_the_deep_model_all_others():
    space = {
        "optim.lr": {"low": 0.1, "high": 1.0},
        "baseline_params.gradient_boosting.max_iter": {"low": 5, "high": 9},
        "baseline_params.random_forest.max_depth": {"choices": [2, 4]},
    }
    assert list(searched(space)) == ["optim.lr"]
    assert list(searched(space, "random_forest")) == ["baseline_params.random_forest.max_depth"]
    with pytest.raises(ConfigError, match=r"nothing to search for bag_of_words; give it keys as baseline_params\.bag"):
        searched(space, "bag_of_words")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (3, "tune.space: optim.lr: expected low and high, or choices, got 3"),
        ({"low": 1}, "tune.space: optim.lr.high: missing"),
        ({"lo": 1, "high": 2}, "tune.space: optim.lr.lo: there is no such key. Allowed: low, high, log, step, choices"),
        ({"low": 2, "high": 1}, "tune.space: optim.lr: low 2 is not below high 1"),
        ({"low": 0, "high": 1, "log": True}, "tune.space: optim.lr.log: needs a low above 0 and no step"),
        ({"low": 1, "high": 9, "log": "yes"}, "tune.space: optim.lr.log: expected true or false, got 'yes'"),
        ({"low": "small", "high": 1}, "tune.space: optim.lr.low: expected a number, got 'small'"),
        ({"low": True, "high": 2}, "tune.space: optim.lr.low: expected a number, got True"),
        ({"low": 0.0, "high": 1.0, "step": 2.0}, "tune.space: optim.lr.step: 2.0 is not above 0 and at most"),
        ({"choices": []}, "tune.space: optim.lr.choices: expected a list of values, got []"),
        ({"choices": [1], "low": 0}, "tune.space: optim.lr: choices do not go with low"),
    ],
)
def test_a_distribution_that_is_none_is_named(given, line):
    with pytest.raises(ConfigError) as caught:
        searched({"optim.lr": given})
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("key", ["seeds", "data.split.seed", "task.init_args.horizon_days", "run.name", "data.source"])
def test_what_decides_the_question_is_not_searched(key):
    with pytest.raises(ConfigError, match="decides the question that is asked, so it is fixed"):
        searched({key: {"choices": [0, 1]}})


def test_schedules_of_unequal_length_are_not_pruned_by_epoch():
    space = {"trainer.max_epochs": {"low": 2, "high": 8}}
    with pytest.raises(ConfigError, match=r"tune\.pruner: median compares trials epoch by epoch"):
        searched(space)
    assert list(searched(space, pruner="none")) == ["trainer.max_epochs"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"n_trials": 0}, "tune.n_trials: 0 is below 1"),
        ({"seeds": 0}, "tune.seeds: 0 is below 1"),
        ({"folds": 1}, "tune.folds: 1 is below 2; null scores the tuning split"),
        ({"timeout_minutes": 0}, "tune.timeout_minutes: 0 is not above 0"),
        ({"seed": -1}, "tune.seed: -1 is not between 0 and 4294967295"),
        ({"metric": "accuracy"}, "tune.metric: 'accuracy' is not one of auprc, auroc, log_loss"),
        ({"pruner": "asha"}, "tune.pruner: 'asha' is not one of median, hyperband, none"),
        ({"name": "a/b"}, "tune.name: 'a/b' is not a folder name"),
    ],
)
def test_an_option_that_cannot_be_is_named(options, line):
    with pytest.raises(ConfigError) as caught:
        TuneOptions(**options)
    assert str(caught.value) == line


def test_a_whole_number_in_a_key_is_a_place_in_a_list():
    config = {"model": {"networks": [{"dropout": 0.1}, {"series": [{"parts": 1}, {"parts": 2}]}]}, "trainer": {}}
    values = {"model.networks.0.dropout": 0.5, "model.networks.1.series.1.parts": 4}
    assert with_values(config, values)["model"]["networks"] == [
        {"dropout": 0.5},
        {"series": [{"parts": 1}, {"parts": 4}]},
    ]
    assert with_values(config, {"model.networks.1": {"dropout": 0.9}})["model"]["networks"] == [
        {"dropout": 0.1},
        {"dropout": 0.9},
    ]
    assert config["model"]["networks"][0] == {"dropout": 0.1}


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("networks.2.dropout", "networks.2.dropout: networks is a list, so '2' must be a place in it, from 0 to 1"),
        ("networks.-1", "networks.-1: networks is a list, so '-1' must be a place in it, from 0 to 1"),
        ("networks.dropout", "networks.dropout: networks is a list, so 'dropout' must be a place in it, from 0 to 1"),
        ("encoders.0", "encoders.0: encoders is a list, so '0' must be a place in it, but it is empty"),
        ("networks.0.width", "networks.0.width: there is no networks.0.width; beside it are dropout"),
        ("copies.0", "copies.0: there is no copies.0"),
    ],
)
def test_a_place_that_is_not_in_a_list_is_named(key, line):
    config = {"networks": [{"dropout": 0.1}, {"dropout": 0.2}], "encoders": [], "copies": 3}
    with pytest.raises(ConfigError) as caught:
        with_values(config, {key: 0.5})
    assert str(caught.value) == f"tune.space: {line}"


def test_values_are_set_in_a_copy_and_a_key_that_is_not_there_is_named_with_those_that_are():
    config = {"optim": {"lr": 1, "warmup": 2}, "trainer": {}, "baseline_params": {}}
    values = {"optim.lr": 5, "trainer.accumulate_grad_batches": 2, "baseline_params.gradient_boosting.max_iter": 7}
    assert with_values(config, values) == {
        "optim": {"lr": 5, "warmup": 2},
        "trainer": {"accumulate_grad_batches": 2},
        "baseline_params": {"gradient_boosting": {"max_iter": 7}},
    }
    assert config == {"optim": {"lr": 1, "warmup": 2}, "trainer": {}, "baseline_params": {}}
    with pytest.raises(ConfigError) as caught:
        with_values(config, {"optim.lrr": 5})
    assert str(caught.value) == "tune.space: optim.lrr: there is no optim.lrr; beside it are lr, warmup"
