"""The comparison itself: networks that are broken on purpose must be noticed, with layer and channel."""

import numpy as np
import pytest
from conformance_cases import CASES
from conformance_oracle import assert_equal, evaluate_slowly, open_words

from binarynet.errors import VerificationError
from binarynet.graph import Affine, Convolution, Dense, Threshold, evaluate, reference
from binarynet.runtime import Session, engines, verify
from random_graphs import changed

ENGINES = [engine.name for engine in engines() if engine.available]
BY_NAME = {case.name: case for case in CASES}
IMAGES = BY_NAME["conv batch 64"]


def first(graph, kind):
    return next(node for node in graph if isinstance(node, kind))


def wrong_threshold(graph, images):
    """A threshold one higher, in a channel and image where the sum meets it exactly."""
    for node in graph:
        if isinstance(node, Threshold):
            sums = evaluate_slowly(graph, images)[node.source]
            met = np.argwhere((sums == node.thresholds).any(axis=tuple(range(sums.ndim - 1))))
            if len(met):
                channel = int(met[0, 0])
                thresholds = node.thresholds.copy()
                thresholds[channel] += 1
                return changed(graph, node.name, thresholds=thresholds), node.name, channel
    raise AssertionError("no sum meets a threshold: choose another seed")


def wrong_direction(graph, images):
    node = first(graph, Threshold)
    falling = node.falling.copy()
    falling[7] ^= True
    return changed(graph, node.name, falling=falling), node.name, 7


def wrong_weight(graph, images):
    """One flipped bit in the last layer: the scores of one channel change by twice the scale."""
    node = [node for node in graph if isinstance(node, Dense | Convolution)][-1]
    scores = first(graph, Affine)
    channel = int(np.argmax(np.abs(scores.scale)))
    weights = node.weights.copy()
    weights[channel].reshape(-1)[0] ^= np.uint64(1)
    return changed(graph, node.name, weights=weights), scores.name, channel


def wrong_last_bit(graph, images):
    """The next float after one shift, in a channel where that changes a score."""
    node = first(graph, Affine)
    scores = evaluate_slowly(graph, images)[node.name]
    for channel in range(len(node.shift)):
        shift = node.shift.copy()
        shift[channel] = np.nextafter(shift[channel], np.float32(np.inf))
        broken = changed(graph, node.name, shift=shift)
        if (evaluate_slowly(broken, images)[node.name] != scores).any():
            return broken, node.name, channel
    raise AssertionError("the last bit of no shift matters: choose another seed")


FAULTS = [wrong_threshold, wrong_direction, wrong_weight, wrong_last_bit]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_suite_notices_a_broken_network(engine, fault):
    graph, images = IMAGES.graph, IMAGES.inputs()
    broken, name, channel = fault(graph, images)
    expected = evaluate_slowly(graph, images)
    got = Session(broken, engine=engine, taps=[name]).run_tapped(images)[name]
    with pytest.raises(AssertionError, match=rf"{name}.*differ, first at \(\d+, .*\b{channel}\)") as caught:
        assert_equal(graph, name, got, expected[name], engine)
    assert engine in str(caught.value)
    sound = Session(graph, engine=engine, taps=[name]).run_tapped(images)[name]
    assert_equal(graph, name, sound, expected[name], engine)


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_names_layer_and_channel(fault):
    graph, images = IMAGES.graph, IMAGES.inputs()
    broken, name, channel = fault(graph, images)
    result = verify(graph, images, extra={"trained": lambda chunk, names: evaluate(broken, chunk, names)})
    assert not result.exact
    assert (result.baseline, set(result.engines)) == ("trained", set(ENGINES))
    wrong = [check.name for check in result.checks if not check.equal]
    assert wrong[0] == name
    with pytest.raises(VerificationError, match=rf"differs from trained in '{name}': .*channel {channel}\b"):
        result.require_exact()


@pytest.mark.parametrize("engine", ENGINES)
def test_verify_notices_a_faulty_engine(engine, monkeypatch):
    """Only one engine is wrong, in one bit of one layer of one image: exactly that is reported."""
    graph, images = IMAGES.graph, IMAGES.inputs()
    node = first(graph, Threshold)
    run, honest = Session.run_tapped, evaluate

    def flip(values):
        if node.name in values:
            values[node.name] = values[node.name].copy()
            values[node.name][5, 2, 3, 0] ^= np.uint64(1 << 9)
        return values

    if engine == "reference":
        monkeypatch.setattr("binarynet.runtime.verification.evaluate", lambda *a: flip(honest(*a)))
        baseline = {"sound": lambda chunk, names: honest(graph, chunk, names)}
    else:
        monkeypatch.setattr(
            Session, "run_tapped", lambda self, x: flip(run(self, x)) if self.engine == engine else run(self, x)
        )
        baseline = None
    result = verify(graph, images, extra=baseline)
    differences = {(check.name, name): n for check in result.checks for name, n in check.differences.items() if n}
    assert differences == {(node.name, engine): 1}
    check = next(check for check in result.checks if not check.equal)
    assert (check.first[engine].image, check.first[engine].position) == (5, (2, 3, 9))
    with pytest.raises(
        VerificationError, match=rf"{engine} differs .*'{node.name}': 1 of .* image 5, channel 9 at pixel \(2, 3\)"
    ):
        result.require_exact()


def test_nonzero_padding_is_noticed():
    graph, images = IMAGES.graph, IMAGES.inputs()
    node = first(graph, Threshold)
    good = evaluate(graph, images, [node.name])[node.name]
    channels = graph.types[node.name].channels
    assert channels % 64
    bad = good.copy()
    bad[0, 0, 0, -1] |= np.uint64(1 << 63)
    open_words(good, channels)
    with pytest.raises(AssertionError, match="padding"):
        open_words(bad, channels)
    values = evaluate(graph, images, [node.name, graph.output]) | {node.name: bad}
    with pytest.raises(VerificationError, match="padding bits"):
        verify(
            graph, images, extra={"reference twin": lambda chunk, names: {n: values[n] for n in names if n in values}}
        )


# Faults in the reference evaluator itself: the specification is not exempt

REFERENCE_FAULTS = {
    "padding of +1": ("_pad", lambda real: lambda x, window, value: real(x, window, 1 if value == 0 else value)),
    "padding that wins a pooling": ("_pad", lambda real: lambda x, window, value: real(x, window, max(value, 0) or 1)),
    "inputs as 2u - 256": ("_operand", lambda real: lambda x, kind: real(x, kind) - (kind.kind == "u8")),
    "0 bits as 0": ("_operand", lambda real: lambda x, kind: np.maximum(real(x, kind), 0)),
    "taps one column to the right": (
        "_taps",
        lambda real: lambda x, w, i, j, out: real(np.roll(x, -1, 2), w, i, j, out),
    ),
}


@pytest.mark.parametrize(("name", "breaks"), REFERENCE_FAULTS.values(), ids=REFERENCE_FAULTS.keys())
def test_the_oracle_notices_a_broken_reference(name, breaks, monkeypatch):
    case = BY_NAME["pool 3x3 stride 2 padding 1 of sums 65 to 64"]
    graph, images = case.graph, case.inputs()
    expected = evaluate_slowly(graph, images)

    def compare():
        for value, got in evaluate(graph, images, list(graph.types)).items():
            assert_equal(graph, value, got, expected[value], "reference")

    compare()
    monkeypatch.setattr(reference, name, breaks(getattr(reference, name)))
    with pytest.raises(AssertionError, match=r"reference: .* differ, first at"):
        compare()


@pytest.mark.parametrize("direction", ["thresholds", "falling"])
def test_the_extreme_thresholds_are_each_needed(direction):
    """Every special threshold and direction changes some bit of its case: none of them is there for nothing."""
    case = BY_NAME["extreme thresholds"]
    graph, images = case.graph, case.inputs()
    node = graph.node("sign")
    values = getattr(node, direction)
    expected = evaluate_slowly(graph, images)["sign"]
    inside = np.flatnonzero((node.thresholds > -255) & (node.thresholds <= 255) | (direction == "falling"))
    assert len(inside)
    for channel in inside:
        changed_values = values.copy()
        # sums are odd here: an even threshold must move by two to meet another one
        changed_values[channel] = ~values[channel] if direction == "falling" else values[channel] + 2
        broken = evaluate_slowly(changed(graph, "sign", **{direction: changed_values}), images)["sign"]
        assert set(np.argwhere(broken != expected)[:, 1]) == {channel}
