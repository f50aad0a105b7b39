"""Options of methods: accepted values, their types, and values refused before anything runs."""

import pytest

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import MethodSpec, Option

INF, NAN = float("inf"), float("nan")


def resolve(method, **given):
    return methods.resolve_options(methods.load(method).SPEC, given)


@pytest.mark.parametrize("name", methods.names())
def test_defaults_are_within_their_own_limits(name):
    defaults = {key: option.default for key, option in methods.load(name).SPEC.options.items()}
    assert resolve(name, **defaults) == defaults


@pytest.mark.parametrize(
    ("method", "option", "value", "cure"),
    [
        ("spacrd", "neighbours", 0, "a whole number at least 1"),
        ("spacrd", "neighbours", -1, "a whole number at least 1"),
        ("spacrd", "batch_size", 0, "a whole number at least 2"),
        ("spacrd", "batch_size", 1, "a whole number at least 2"),
        ("spacrd", "batch_size", 12.5, "a whole number at least 2"),
        ("spacrd", "batch_size", True, "a whole number at least 2"),
        ("spacrd", "batch_size", INF, "a whole number at least 2"),
        ("spacrd", "epochs_align", -1, "a whole number at least 0"),
        ("spacrd", "epochs_classify", 0, "a whole number at least 1"),
        ("spacrd", "temperature", 0, "above 0"),
        ("spacrd", "temperature", -0.07, "above 0"),
        ("spacrd", "learning_rate", -1, "above 0"),
        ("spacrd", "learning_rate", 0.0, "above 0"),
        ("spacrd", "learning_rate", NAN, "above 0"),
        ("spacrd", "learning_rate", INF, "above 0"),
        ("spacrd", "learning_rate", "1e-4", "a number, written like 0.001 or 1.0e-3, above 0"),
        ("spacrd", "alpha", 1.5, "at least 0 and at most 1"),
        ("spacrd", "alpha", -0.5, "at least 0 and at most 1"),
        ("spacrd", "beta", -0.5, "at least 0"),
        ("spacrd", "gamma", NAN, "at least 0"),
        ("spacrd", "finetune_encoders", 1, "something like False"),
        ("linear", "C", 0, "above 0"),
        ("linear", "C", -1.0, "above 0"),
        ("linear", "C", INF, "above 0"),
        ("linear", "C", None, "above 0"),
        ("linear", "neighbours", -1, "a whole number at least 0"),
        ("linear", "modalities", [], "a list of: image, gene"),
        ("linear", "modalities", "gene", "a list of: image, gene"),
    ],
)
def test_a_bad_value_is_refused_with_the_valid_ones(method, option, value, cure):
    with pytest.raises(InputError) as caught:
        resolve(method, **{option: value})
    message = str(caught.value)
    assert message.startswith(f"method {method}: option `{option}` is {value!r}")
    assert cure in message


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("spacrd", "neighbours", 1),
        ("spacrd", "batch_size", 2),
        ("spacrd", "epochs_align", 0),
        ("spacrd", "epochs_fuse", 0),
        ("spacrd", "alpha", 1.0),
        ("spacrd", "alpha", 0.0),
        ("spacrd", "temperature", 1e-6),
        ("linear", "neighbours", 0),
        ("linear", "C", 1e-12),
    ],
)
def test_a_value_at_its_limit_is_accepted(method, option, value):
    assert resolve(method, **{option: value})[option] == value


def test_numbers_take_the_type_of_the_default():
    found = resolve("spacrd", batch_size=512.0, beta=1)
    assert (type(found["batch_size"]), found["batch_size"]) == (int, 512)
    assert (type(found["beta"]), found["beta"]) == (float, 1.0)


def test_given_options_override_the_preset_and_are_not_changed():
    spec = MethodSpec(
        name="m",
        regime="control",
        modalities=(),
        reference="",
        options={"a": Option(1, "a"), "b": Option(1, "b"), "c": Option(1, "c")},
        presets={"paper": {}, "ours": {"a": 2, "b": 2}},
    )
    given = {"preset": "ours", "b": 3.0}
    assert methods.resolve_options(spec, given) == {"a": 2, "b": 3, "c": 1}
    assert given == {"preset": "ours", "b": 3.0}


def test_methods_of_normal_tissue_that_read_genes_can_have_equal_depth_and_no_others():
    specs = {name: methods.load(name).SPEC for name in methods.names()}
    having = {name for name, spec in specs.items() if "equal_depth" in spec.options}
    assert having == {
        "camlu", "dominant", "m3dm", "meatrd", "patchcore", "prem", "scmap", "spatial_id", "stands",
    }  # fmt: skip
    assert {specs[name].options["equal_depth"] for name in having} == {methods.EQUAL_DEPTH}
    assert resolve("scmap")["equal_depth"] == 0
    assert resolve("scmap", equal_depth=500)["equal_depth"] == 500
    with pytest.raises(InputError, match="option `equal_depth` is -1; give a whole number at least 0"):
        resolve("scmap", equal_depth=-1)
