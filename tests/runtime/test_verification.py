"""verify: what it compares, how it reports, and that it cannot pass without comparing. (More in conformance.)"""

import numpy as np
import pytest

from binarynet.errors import BackendUnavailableError, ShapeError, UsageError, VerificationError
from binarynet.graph import evaluate
from binarynet.runtime import REFERENCE, engines, verification, verify
from random_graphs import changed, dense_graph, image_graph, random_images

ENGINES = [engine.name for engine in engines() if engine.available]
NATIVE = [name for name in ENGINES if name != REFERENCE]
GRAPH = image_graph()
IMAGES = random_images(np.random.default_rng(0), 20, GRAPH.input.shape)


def source_of(graph):
    return lambda chunk, names: evaluate(graph, chunk, names)


def test_all_engines_agree():
    done = []
    result = verify(GRAPH, IMAGES, progress=done.append)
    result.require_exact()
    assert result.exact
    assert (result.baseline, result.engines, result.num_images) == (REFERENCE, tuple(NATIVE), 20)
    assert [(check.name, check.kind, check.compared) for check in result.checks] == [
        ("sign1", "bits", 20 * 3 * 2 * 9),
        ("sign2", "bits", 20 * 2 * 1 * 5),
        ("scores", "f32", 20 * 4),
    ]
    assert all(check.differences == dict.fromkeys(NATIVE, 0) for check in result.checks)
    assert done == [20]


def test_sums_too():
    result = verify(GRAPH, IMAGES, sums=True)
    assert [check.name for check in result.checks] == ["conv1", "pool1", "sign1", "conv2", "sign2", "dense", "scores"]
    result.require_exact()


def test_chunks_are_counted_together(monkeypatch):
    monkeypatch.setattr(verification, "_CHUNK", 8)
    broken = changed(GRAPH, "scores", shift=GRAPH.node("scores").shift + np.float32([0, 0, 1, 0]))
    images = IMAGES.copy()
    done = []
    result = verify(GRAPH, images, extra={"broken": source_of(broken)}, progress=done.append)
    assert done == [8, 16, 20]
    check = result.checks[-1]
    assert check.differences == dict.fromkeys(ENGINES, 20)
    assert (check.first[REFERENCE].image, check.first[REFERENCE].position) == (0, (2,))


def test_a_difference_late_in_the_data_is_placed(monkeypatch):
    """Image 13 of 20, in the second chunk."""
    monkeypatch.setattr(verification, "_CHUNK", 8)

    def wrong_once(chunk, names):
        values = evaluate(GRAPH, chunk, names)
        place = (chunk == IMAGES[13]).all(axis=(1, 2, 3))
        values["scores"][place, 3] += 1
        return values

    result = verify(GRAPH, IMAGES, extra={"flaky": wrong_once}, engine_names=[REFERENCE])
    with pytest.raises(VerificationError) as caught:
        result.require_exact()
    got = evaluate(GRAPH, IMAGES)["scores"][13, 3]
    assert str(caught.value) == (
        "reference differs from flaky in 'scores': 1 of 80 f32 values; "
        f"first at image 13, channel 3: expected {got + np.float32(1):g}, got {got:g}"
    )


def test_minus_zero_is_not_zero():
    """Sums of one sign times a zero, plus -0.0: the sign of the zero decides the sign of the score."""
    graph = changed(GRAPH, "scores", scale=np.float32([0.0] * 4), shift=np.float32([-0.0] * 4))
    other = changed(GRAPH, "scores", scale=np.float32([-0.0] * 4), shift=np.float32([-0.0] * 4))
    plain, signed = evaluate(graph, IMAGES)["scores"], evaluate(other, IMAGES)["scores"]
    assert np.array_equal(plain, signed)
    assert np.array_equal(np.signbit(plain), ~np.signbit(signed))
    assert not verify(graph, IMAGES, extra={"signed": source_of(other)}).exact


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda scores: scores.astype(np.float64), r"reference: 'scores' is float32 \[20, 4\], expected float64"),
        (lambda scores: scores[:, :3], r"expected float32 \[20, 3\]"),
    ],
)
def test_other_shapes_and_types_are_differences(damage, message):
    source = {"odd": lambda chunk, names: {"scores": damage(evaluate(GRAPH, chunk)["scores"])}}
    with pytest.raises(VerificationError, match=message):
        verify(GRAPH, IMAGES, extra=source)


def test_values_that_the_baseline_lacks_come_from_the_reference():
    source = {"scores only": lambda chunk, names: evaluate(GRAPH, chunk, ["scores"])}
    result = verify(GRAPH, IMAGES, extra=source)
    assert result.exact
    assert [check.name for check in result.checks] == ["sign1", "sign2", "scores"]


def test_without_the_reference(monkeypatch):
    monkeypatch.setattr(verification, "evaluate", None)  # which it is then not called
    one = NATIVE[-1]
    with pytest.raises(UsageError, match=f"there is nothing to compare with '{one}'"):
        verify(GRAPH, IMAGES, engine_names=[one], reference=False)
    result = verify(GRAPH, IMAGES, engine_names=NATIVE, reference=False)
    assert (result.exact, result.baseline, result.engines) == (True, NATIVE[0], tuple(NATIVE[1:]))
    scores = {"scores only": lambda chunk, names: evaluate(GRAPH, chunk, ["scores"])}
    result = verify(GRAPH, IMAGES, extra=scores, reference=False)
    assert (result.exact, result.engines) == (True, tuple(NATIVE))
    wrong = {"changed": source_of(changed(GRAPH, "sign2", falling=~GRAPH.node("sign2").falling))}
    assert not verify(GRAPH, IMAGES, extra=wrong, reference=False).exact
    assert [check.name for check in result.checks] == ["sign1", "sign2", "scores"]


def test_a_second_source_may_lack_values_but_not_the_result():
    sources = {"whole": source_of(GRAPH), "scores only": lambda chunk, names: evaluate(GRAPH, chunk, ["scores"])}
    assert verify(GRAPH, IMAGES, extra=sources).engines == ("scores only", REFERENCE, *NATIVE)
    for name in ("first", "second"):
        empty = {name: lambda chunk, names: {}}
        extra = empty if name == "first" else {"whole": source_of(GRAPH)} | empty
        with pytest.raises(UsageError, match=f"the source '{name}' does not give the network's result 'scores'"):
            verify(GRAPH, IMAGES, extra=extra)


def test_a_proof_needs_something_to_compare():
    with pytest.raises(UsageError, match="verify needs at least one image"):
        verify(GRAPH, IMAGES[:0])
    with pytest.raises(UsageError, match="there is nothing to compare with 'reference'"):
        verify(GRAPH, IMAGES, engine_names=[REFERENCE])
    with pytest.raises(UsageError, match="there is nothing to compare"):
        verify(GRAPH, IMAGES, engine_names=[])


def test_wrong_arguments():
    with pytest.raises(ShapeError, match="images: expected"):
        verify(GRAPH, IMAGES.astype(np.float32))
    with pytest.raises((UsageError, BackendUnavailableError), match="unknown engine 'nonsense'"):
        verify(GRAPH, IMAGES, engine_names=["nonsense"])


@pytest.mark.parametrize("name", NATIVE)
def test_one_engine_only(name):
    result = verify(dense_graph(), np.zeros((2, 70), np.uint8), engine_names=[name], num_threads=2)
    assert result.engines == (name,)
    assert result.exact
