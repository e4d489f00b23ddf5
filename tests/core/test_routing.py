from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import Model, Target, Upstream
from relay.errors import NoSuchModel
from relay.routing import PublicModel, Router

A = Upstream("a", "x", "http://a", models=("alpha-*",))
B = Upstream("b", "x", "http://b", models=("beta-*", "shared"), capabilities={"chat": True})


def names(model: PublicModel) -> list[str]:
    return [str(target) for target in model.targets]


def test_a_configured_model_comes_before_everything() -> None:
    router = Router([A, B], [PublicModel("alpha-1", (Target(B, "real"),))])
    router.update("a", [Model("alpha-1")])
    assert names(router.resolve("alpha-1")) == ["b/real"]


def test_a_name_that_several_upstreams_list_has_them_all_as_targets_in_order() -> None:
    router = Router([A, B])
    router.update("b", [Model("m")])
    router.update("a", [Model("m")])
    assert names(router.resolve("m")) == ["a/m", "b/m"]


def test_an_upstream_can_be_named_outright() -> None:
    router = Router([A, B])
    router.update("b", [Model("org/m", context_length=7)])
    model = router.resolve("b/org/m")
    assert names(model) == ["b/org/m"]
    assert (model.id, model.context_length) == ("b/org/m", 7)
    assert names(router.resolve("a/never-listed")) == ["a/never-listed"]


def test_patterns_serve_only_until_the_list_is_known() -> None:
    router = Router([A, B])
    assert names(router.resolve("alpha-9")) == ["a/alpha-9"]
    router.update("a", [Model("alpha-1")])
    with pytest.raises(NoSuchModel):
        router.resolve("alpha-9")


@pytest.mark.parametrize(
    "name", ["", "nope", "c/m", "a/", "/m", "ALPHA-1", " alpha-1", "alpha\u200b-1", "b", "x" * 300]
)
def test_only_exact_names_resolve(name: str) -> None:
    router = Router([A, B], [PublicModel("alpha-1", (Target(A, "alpha-1"),))])
    router.update("a", [])
    with pytest.raises(NoSuchModel) as wrong:
        router.resolve(name)
    assert wrong.value.param == "model"
    assert len(wrong.value.message) < 250


def test_a_list_that_comes_back_empty_forgets_nothing() -> None:
    router = Router([A])
    router.update("a", [Model("m")])
    router.update("a", [])
    assert names(router.resolve("m")) == ["a/m"]


def test_a_listed_model_inherits_what_its_upstream_can_do() -> None:
    router = Router([B])
    router.update("b", [Model("m", capabilities={"vision": True})])
    assert router.resolve("m").capabilities == {"chat": True, "vision": True}


# Shares and keys.

POOLED = replace(A, key_number=1, pool=(replace(A, key_number=2), replace(A, key_number=3)))


def test_neighbours_with_a_weight_stand_together_and_others_alone() -> None:
    model = PublicModel("m", tuple(Target(A, name) for name in "stuvw"), weights=(0, 3, 1, 0, 2))
    shown = [["".join(target.model for target in member) for member in group.members] for group in model.groups]
    assert shown == [["s"], ["t", "u"], ["v"], ["w"]]
    assert [group.wheel for group in model.groups] == [(0,), (0, 0, 1, 0), (0,), (0,)]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_a_wheel_is_the_shortest_that_gives_each_its_share_and_never_bunches(weights: list[int]) -> None:
    model = PublicModel("m", tuple(Target(A, str(number)) for number in range(len(weights))), weights=tuple(weights))
    (wheel,) = [group.wheel for group in model.groups]
    total, size = sum(weights), len(wheel)
    assert size == total // math.gcd(*weights)
    for place, weight in enumerate(weights):
        assert wheel.count(place) * total == weight * size
        taken = 0
        for turn, one in enumerate(wheel, 1):
            taken += one == place
            # Nowhere on the way is anybody more than a few turns ahead of its share, or behind it.
            assert abs(taken - turn * weight / total) < len(weights)


def test_each_key_of_an_upstream_is_a_variant_of_the_target() -> None:
    (group,) = PublicModel("m", (Target(POOLED, "x"),)).groups
    assert [[target.upstream.key_number for target in member] for member in group.members] == [[1, 2, 3]]
    assert len({target for member in group.members for target in member}) == 3


def test_only_a_model_whose_calls_all_begin_alike_has_a_first() -> None:
    plain, other = Target(A, "x"), Target(B, "x")
    assert PublicModel("m", (plain, other)).first is plain
    assert PublicModel("m", (plain, other), weights=(0, 1)).first is plain
    assert PublicModel("m", (plain, other), weights=(1, 1)).first is None
    assert PublicModel("m", (Target(POOLED, "x"),)).first is None
    assert PublicModel("m", ()).first is None


def test_upstreams_with_several_keys_are_found_by_every_way_of_naming() -> None:
    router = Router([POOLED])
    assert len(router.resolve("alpha-9").groups[0].members[0]) == 3
    assert len(router.resolve("a/what").groups[0].members[0]) == 3
    router.update("a", [Model("m")])
    assert len(router.resolve("m").groups[0].members[0]) == 3
