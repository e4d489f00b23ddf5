from __future__ import annotations

import pytest

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
