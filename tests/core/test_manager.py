from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from relay import Family, Target, Upstream, hookimpl
from relay.errors import PluginError, Unsupported
from relay.ir import EmbeddingRequest, EmbeddingResponse, Request
from relay.manager import Contradiction, Plugins


def module(**functions: Any) -> ModuleType:
    made = ModuleType("made_for_a_test")
    for name, value in functions.items():
        setattr(made, name, hookimpl(value) if callable(value) else value)
    return made


def family(name: str) -> Any:
    return lambda: [Family(name)]


def loaded(**plugins: ModuleType) -> Plugins:
    all_plugins = Plugins()
    for name, plugin in plugins.items():
        all_plugins.add(name, plugin)
    all_plugins.bind()
    return all_plugins


TARGET = Target(Upstream("up", "one", "http://127.0.0.1"), "m")
REQUEST = Request("m", [])


def errors(plugins: Plugins) -> dict[str, str | None]:
    return {record.name: record.error for record in plugins.records}


@pytest.mark.promise("P-02")
def test_a_misspelt_hook_is_reported_with_the_right_name() -> None:
    plugins = loaded(bad=module(translate_reqest=lambda request: b""), good=module(relay_families=family("one")))
    assert errors(plugins) == {
        "bad": "there is no hook 'translate_reqest'; did you mean 'translate_request'?",
        "good": None,
    }
    assert set(plugins.families) == {"one"}


@pytest.mark.promise("P-02")
def test_a_hook_with_an_argument_it_does_not_have_is_reported() -> None:
    plugins = loaded(bad=module(list_models=lambda upstraem: None))
    assert "upstraem" in str(errors(plugins)["bad"])


@pytest.mark.promise("P-05")
def test_a_coroutine_where_a_function_is_needed_is_reported() -> None:
    async def translate_request(request: Request) -> bytes:
        return b""

    plugins = loaded(bad=module(translate_request=translate_request))
    assert errors(plugins)["bad"] == "translate_request must be a plain function, not a coroutine"


def test_a_plugin_without_hooks_is_reported() -> None:
    assert "implements no hook" in str(errors(loaded(bad=ModuleType("empty")))["bad"])


@pytest.mark.promise("P-02")
@pytest.mark.parametrize("raised", [ImportError("no such thing"), SystemExit(3), SyntaxError("bad"), RuntimeError("x")])
def test_a_plugin_that_cannot_be_imported_takes_nobody_with_it(raised: BaseException) -> None:
    def bring() -> object:
        raise raised

    plugins = Plugins()
    plugins.add("bad", bring)
    plugins.add("good", module(relay_families=family("one")))
    plugins.bind()
    assert str(errors(plugins)["bad"]).startswith("cannot be imported: ")
    assert set(plugins.families) == {"one"}


@pytest.mark.promise("P-02")
def test_a_plugin_whose_registration_raises_takes_nobody_with_it() -> None:
    def relay_families() -> Sequence[Family]:
        raise RuntimeError("boom")

    plugins = loaded(bad=module(relay_families=relay_families), good=module(relay_families=family("one")))
    assert "failed in relay_families" in str(errors(plugins)["bad"])
    assert set(plugins.families) == {"one"}


def test_something_that_is_no_family_is_reported() -> None:
    plugins = loaded(bad=module(relay_families=lambda: ["openai"]))
    assert "returned str from relay_families, not Family" in str(errors(plugins)["bad"])


@pytest.mark.promise("P-09")
def test_two_plugins_for_one_family_stop_the_relay() -> None:
    with pytest.raises(Contradiction, match="'a' and 'b' both serve the family 'one'"):
        loaded(a=module(relay_families=family("one")), b=module(relay_families=family("one")))


def test_a_family_is_served_by_its_own_plugin_only() -> None:
    plugins = loaded(
        a=module(relay_families=family("one"), translate_request=lambda: b"a"),
        b=module(relay_families=family("two"), translate_request=lambda: b"b"),
    )
    assert plugins.families["one"].translate_request(REQUEST, TARGET, []) == b"a"
    assert plugins.families["two"].translate_request(REQUEST, TARGET, []) == b"b"


def test_a_wrapper_of_another_plugin_sees_every_family() -> None:
    seen: list[str] = []

    def translate_request(target: Target) -> Any:
        seen.append(target.model)
        result = yield
        return result + b"!"

    wrapper = ModuleType("wrapper")
    wrapper.translate_request = hookimpl(wrapper=True)(translate_request)  # type: ignore[attr-defined]
    plugins = loaded(a=module(relay_families=family("one"), translate_request=lambda: b"a"), watcher=wrapper)
    assert plugins.families["one"].translate_request(REQUEST, TARGET, []) == b"a!"
    assert seen == ["m"]


@pytest.mark.promise("P-03")
def test_what_a_plugin_raises_is_named_and_its_own_errors_are_kept() -> None:
    def broken(request: Request) -> bytes:
        raise KeyError("secret detail")

    def refusing(request: Request) -> bytes:
        raise Unsupported("no", param="n")

    plugins = loaded(
        a=module(relay_families=family("one"), translate_request=broken),
        b=module(relay_families=family("two"), translate_request=refusing),
    )
    with pytest.raises(PluginError, match="plugin 'a' failed in translate_request") as wrong:
        plugins.families["one"].translate_request(REQUEST, TARGET, [])
    assert "secret detail" not in wrong.value.message
    with pytest.raises(Unsupported):
        plugins.families["two"].translate_request(REQUEST, TARGET, [])


@pytest.mark.promise("P-03")
@pytest.mark.parametrize("answer", [None, "text", 3])
def test_an_answer_of_the_wrong_type_is_a_plugin_error(answer: object) -> None:
    plugins = loaded(a=module(relay_families=family("one"), translate_request=lambda: answer))
    with pytest.raises(PluginError, match="from translate_request"):
        plugins.families["one"].translate_request(REQUEST, TARGET, [])


def test_files_of_the_drop_in_folder_are_plugins(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(
        "from relay import Family, hookimpl\n@hookimpl\ndef relay_families():\n    return [Family('dropped')]\n"
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    plugins = Plugins.load(folder=tmp_path)
    assert "dropped" in plugins.families
    assert str(errors(plugins)["broken"]).startswith("cannot be imported: SyntaxError")
    import json

    assert json.loads("1") == 1


@pytest.mark.promise("P-01")
def test_there_is_no_drop_in_folder_unless_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise AssertionError('imported')")
    for name in ("plugins", "providers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evil.py").write_text("raise AssertionError('imported')")
    monkeypatch.chdir(tmp_path)
    assert "evil" not in {record.name for record in Plugins.load().records}


@pytest.mark.promise("P-01")
def test_a_disabled_plugin_is_not_imported() -> None:
    plugins = Plugins.load(disabled=["demo"])
    record = next(record for record in plugins.records if record.name == "demo")
    assert record.disabled
    assert "demo" not in plugins.families


def test_every_built_in_plugin_loads() -> None:
    assert {record.name: record.error for record in Plugins.load().records} == dict.fromkeys(
        ("anthropic", "bedrock", "cache", "demo", "gemini", "latency", "local", "openai", "prices")
    )


@pytest.mark.promise("P-06")
def test_plugins_get_their_own_options_only() -> None:
    seen: list[Any] = []

    def relay_families(options: Any) -> Sequence[Family]:
        seen.append(dict(options))
        return []

    plugins = Plugins()
    plugins.options = {"a": {"x": 1}, "b": {"y": 2}}
    plugins.add("a", module(relay_families=relay_families))
    plugins.bind()
    assert seen == [{"x": 1}]


class Thing(SimpleNamespace):
    """Hooks in an object."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_plugin_may_be_an_object() -> None:
    thing = Thing(relay_families=hookimpl(family("one")))
    assert set(loaded_object(thing).families) == {"one"}


@pytest.mark.promise("P-02")
def test_an_object_that_cannot_be_told_from_others_is_named_and_left_out() -> None:
    plugins = Plugins.load(given={"thing": SimpleNamespace(relay_families=hookimpl(family("one")))})
    (record,) = [record for record in plugins.records if record.name == "thing"]
    assert record.error == "an object of SimpleNamespace cannot be a plugin: it has no hash"
    assert "openai" in plugins.families


def loaded_object(thing: object) -> Plugins:
    plugins = Plugins()
    plugins.add("thing", thing)
    plugins.bind()
    return plugins


WANTED = EmbeddingRequest("m", ["a"])


def test_a_family_without_hooks_for_vectors_makes_none() -> None:
    bound = loaded(a=module(relay_families=family("one"))).families["one"]
    assert bound.translate_embedding_request(WANTED, TARGET, []) is None
    assert bound.translate_embedding_response(TARGET, 200, {}, b"") is None


def test_vectors_are_asked_of_the_family_by_its_own_hooks() -> None:
    answer = EmbeddingResponse([[1.0]])
    plugin = module(
        relay_families=family("one"),
        translate_embedding_request=lambda request: request.inputs[0].encode(),
        translate_embedding_response=lambda body, dialect: answer if (body, dialect) == (b"b", "d") else None,
    )
    bound = loaded(a=plugin).families["one"]
    assert bound.translate_embedding_request(WANTED, TARGET, []) == b"a"
    assert bound.translate_embedding_response(TARGET, 200, {}, b"b", "d") is answer


def test_a_wrong_answer_to_the_hooks_for_vectors_names_the_plugin() -> None:
    plugin = module(
        relay_families=family("one"),
        translate_embedding_request=lambda: "text",
        translate_embedding_response=lambda: [[1.0]],
    )
    bound = loaded(a=plugin).families["one"]
    with pytest.raises(PluginError, match="'a' returned str from translate_embedding_request"):
        bound.translate_embedding_request(WANTED, TARGET, [])
    with pytest.raises(PluginError, match="'a' returned list from translate_embedding_response"):
        bound.translate_embedding_response(TARGET, 200, {}, b"")
