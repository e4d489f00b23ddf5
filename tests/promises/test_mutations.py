"""Every guard is there because something would fail without it: each is taken out in turn, and a test has to notice.

A guard is the few words that call it. They are replaced in the running code of a copy of this process, in which one
test is then run that stands for those that prove it. A test that is fine without the guard proves nothing of it.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]
TOGETHER = 2
"""Copies that run side by side."""
SECONDS = 270.0
EVERYWHERE = "promises/test_everywhere.py::test_each_guard_refuses_every_kind_of_call_and_nothing_is_sent"


@dataclass(frozen=True)
class Guard:
    """One guard, how it is taken out, and who has to notice."""

    where: str
    """`module:function`."""
    words: str
    """What stands in that function just once."""
    instead: str
    test: str


GUARDS: Mapping[str, Guard] = {
    # Who may ask.
    "unknown keys": Guard(
        "views.auth:_looked_up",
        'raise NoKey("the API key is unknown, expired or revoked")',
        "key = (await relay.store.keys.all())[0]",
        "promises/test_everywhere.py::test_no_kind_of_call_is_served_to_one_without_a_key",
    ),
    "keys that are no more": Guard(
        "store.ring:KeyRing.known",
        "self._judge(found)",
        "found[0]",
        "flow/test_chat.py::test_a_revoked_key_is_refused_within_a_second",
    ),
    "two keys in one request": Guard(
        "views.auth:token_of",
        "len(found) > 1",
        "False",
        "promises/test_keys.py::test_a_key_is_the_same_in_each_of_its_places_and_two_are_none",
    ),
    "who guesses keys": Guard(
        "views.auth:_looked_up",
        "if wait:",
        "if False:",
        "promises/test_keys.py::test_whoever_guesses_has_to_wait_and_nobody_else_has",
    ),
    "guesses are counted": Guard(
        "views.auth:_looked_up",
        "relay.throttle.failed(address, relay.clock())",
        "pass",
        "promises/test_keys.py::test_whoever_guesses_has_to_wait_and_nobody_else_has",
    ),
    "models of a key": Guard(
        "pipeline:Pipeline.admit", "not call.key.allows(model.id)", "False", f"{EVERYWHERE}[models of the key]"
    ),
    "models of a key, listed": Guard(
        "views.models:ModelList.answer",
        "if allows(model.id)",
        "if True",
        "flow/test_chat.py::test_a_key_sees_and_uses_only_its_models",
    ),
    "models of a key, one by one": Guard(
        "views.models:OneModel.answer",
        "not allows(model.id)",
        "False",
        "flow/test_chat.py::test_a_key_sees_and_uses_only_its_models",
    ),
    "two models in one body": Guard(
        "body:read_body",
        "_refuse_twins(raw)",
        "pass",
        "promises/test_routing.py::test_the_model_that_is_allowed_is_the_model_that_is_called",
    ),
    "a model in another spelling": Guard(
        "body:check_names",
        "_refuse_spellings(data, MODEL)",
        "pass",
        "promises/test_doubt.py::test_no_second_model_in_any_spelling_gets_past_the_one_that_is_allowed",
    ),
    "names that lead elsewhere": Guard(
        "routing:Router._outright",
        "not DOTS.isdisjoint(_BREAKS.split(rest))",
        "False",
        "promises/test_doubt.py::test_a_models_name_is_one_part_of_the_upstreams_path_or_refused[..]",
    ),
    "bounds that are said twice": Guard(
        "pipeline:Pipeline._reserve",
        "head.check_bounds(dialect.bounds)",
        "pass",
        "promises/test_doubt.py::test_nothing_that_bounds_a_budget_can_be_said_twice",
    ),
    "targets that are not the model's": Guard(
        "manager:Ordering.order",
        "len(set(found)) != len(found) or not set(found) <= set(targets)",
        "False",
        "core/test_dispatch.py::test_a_policy_that_leaves_the_models_targets_is_not_followed",
    ),
    # What a call takes part in.
    "limits of the key": Guard(
        "pipeline:Pipeline._all_scopes", 'yield Scope("key", key.id, limits)', "pass", f"{EVERYWHERE}[key's tokens]"
    ),
    "limits of the model": Guard(
        "pipeline:Pipeline._all_scopes",
        "yield Scope(MODEL, model.id, model.limits)",
        "pass",
        f"{EVERYWHERE}[model's requests]",
    ),
    "limits of the key's model": Guard(
        "pipeline:Pipeline._all_scopes",
        'yield Scope("key\'s model", (key.id, model.id), limits)',
        "pass",
        f"{EVERYWHERE}[calls at a time of a key and a model]",
    ),
    "requests a minute": Guard(
        "limits:Limiter.reserve",
        "state.requests < 1",
        "False",
        f"{EVERYWHERE}[key's requests]",
    ),
    "tokens a minute": Guard(
        "limits:Limiter.reserve",
        "state.tokens < tokens",
        "False",
        f"{EVERYWHERE}[key's tokens]",
    ),
    "calls at a time": Guard(
        "limits:Limiter.reserve", "state.running >= state.most", "False", f"{EVERYWHERE}[key's calls at a time]"
    ),
    "budget": Guard(
        "budget:Ledger.check",
        "if limit and account.of(window, at) + account.held + amount > limit:",
        "if False:",
        f"{EVERYWHERE}[budget]",
    ),
    "money is set aside": Guard(
        "pipeline:Pipeline._reserve",
        "call.hold = account.hold(amount, call.at)",
        "pass",
        "promises/test_budgets.py::test_two_hundred_calls_at_once_do_not_exceed_a_budget_by_one[total-False]",
    ),
    "models without a price": Guard(
        "pipeline:Pipeline._dearest",
        'settings.unpriced == "refuse"',
        "False",
        "promises/test_budgets.py::test_a_model_without_a_price_is_refused_to_keys_with_a_budget_or_costs_nothing",
    ),
    "places are given back": Guard(
        "app:Relay.finish",
        "call.reservation.settle(used, now)",
        "pass",
        "promises/test_waiting.py::test_a_place_is_given_on_however_the_call_before_ends[ok-model]",
    ),
    "room in a line": Guard(
        "lines:Line.join",
        "self._length >= most",
        "False",
        "core/test_lines.py::test_a_full_line_makes_room_for_those_who_have_less_in_it",
    ),
    "repeats": Guard(
        "views.calls:CallView._answer",
        'if name is None or self.operation == "count_tokens":',
        "if True:",
        "promises/test_repeats.py::test_while_the_first_is_under_way_a_repeat_is_told_to_wait",
    ),
    "repeats of something else": Guard(
        "repeats:Repeater._same",
        "before != now",
        "False",
        "promises/test_repeats.py::test_another_request_under_the_same_name_is_refused",
    ),
    "whose answer it was": Guard(
        "relay_cache.question:question_digest",
        "0 if shared and not head.has_tools else question.key",
        "0",
        "promises/test_cache.py::test_answers_belong_to_their_key_unless_they_are_shared[False]",
    ),
    "answers that are not whole": Guard(
        "relay_cache.policy:AnswerCache._ask",
        "not COMPLETE.issuperset(given.stops)",
        "False",
        "promises/test_cache.py::test_what_is_not_whole_is_not_kept[length-True]",
    ),
    # What comes in.
    "bodies that are too large": Guard(
        "views.calls:CallView._body",
        "len(body) > most",
        "False",
        "promises/test_everywhere.py::test_no_kind_of_call_may_have_a_body_over_the_limit",
    ),
    "bodies that would be too large": Guard(
        "views.calls:CallView._body",
        "(request.content_length or 0) > most",
        "False",
        "promises/test_wire.py::test_whoever_has_a_key_is_asked_for_the_body",
    ),
    "bodies that are compressed": Guard(
        "views.calls:CallView._at_hand",
        'request.headers.get("Content-Encoding", "identity").lower() != "identity"',
        "False",
        "flow/test_faults.py::test_a_compressed_body_is_refused",
    ),
    "bodies that do not come": Guard(
        "views.calls:CallView._body",
        "began + wait + len(body) / SLOWEST",
        "None",
        "promises/test_slow.py::test_a_body_may_take_long_only_while_it_comes",
    ),
    "heads that drip": Guard(
        "gate:Gate._dripped",
        "self.force_close()",
        "pass",
        "promises/test_slow.py::test_whoever_says_nothing_or_drips_its_head_is_let_go",
    ),
    "keys that end while they wait": Guard(
        "pipeline:Pipeline._turn",
        "self.relay.store.ring.latest(call.key)",
        "call.key",
        "promises/test_rights.py::test_what_was_let_in_goes_on_and_what_waits_is_judged_again"
        "[revoked-/v1/chat/completions]",
    ),
    "schemas without end": Guard(
        "schemas:ArgumentCheck.fault",
        "checker.demand.too_much(arguments, len(call.arguments))",
        "False",
        "core/test_effort.py::test_what_would_take_for_ever_or_all_memory_is_not_begun[itself]",
    ),
    "schemas that are too much together": Guard(
        "schemas:check_definitions",
        "weight > MAX_WEIGHT",
        "False",
        "core/test_effort.py::test_no_definition_takes_long_to_read",
    ),
    "what stands for a key in examples": Guard(
        "catalog:_Builder.is_no_key",
        "EXAMPLE_KEYS.fullmatch(key) is not None",
        "False",
        "core/test_discovery.py::test_what_is_no_key_is_refused_by_name_wherever_it_comes_from[text]",
    ),
    "clients that take nothing": Guard(
        "gate:Gate._look",
        "transport.abort()",
        "pass",
        "promises/test_slow.py::test_one_that_takes_nothing_is_let_go_and_one_that_is_slow_is_not",
    ),
    "foreign hosts": Guard(
        "gate:Guard._preflight",
        "if not origins.answers_to(name):",
        "if False:",
        "promises/test_origins.py::test_a_foreign_host_name_is_refused_everywhere_also_in_the_lane",
    ),
    "foreign hosts in the lane": Guard(
        "lane:Lane.head",
        "not origins.answers_to(headers.get(HOST))",
        "False",
        "promises/test_origins.py::test_a_foreign_host_name_is_refused_everywhere_also_in_the_lane",
    ),
    "pages of others": Guard(
        "gate:Guard._preflight",
        "request[CROSS_ORIGIN] = allowed = origins.headers(origin, host)",
        "return None",
        "promises/test_origins.py::test_no_page_may_ask_unless_it_was_allowed",
    ),
    "definitions of tools": Guard(
        "schemas:Definitions.check",
        "check_definitions(tools)",
        "pass",
        "flow/test_chat.py::test_a_tool_definition_that_is_no_schema_is_refused_with_its_path",
    ),
    "losses of strict keys": Guard(
        "attempt:Attempt._forward",
        "if not loss.hint:",
        "if False:",
        "promises/test_cache.py::test_a_strict_key_gets_no_answer_that_it_would_be_refused",
    ),
    # What goes out, and what comes back.
    "addresses of the network": Guard(
        "guard:judged_socket",
        "verdict(str(place[0]), permit)",
        "None",
        "promises/test_guard.py::test_a_name_that_leads_into_the_network_is_refused_unless_it_may",
    ),
    "redirects": Guard(
        "upstream:AiohttpTransport._head",
        "allow_redirects=False",
        "allow_redirects=True",
        "promises/test_guard.py::test_no_redirect_is_followed",
    ),
    "keys that upstreams repeat": Guard(
        "pipeline:Pipeline.failed",
        "error.hide(course.target.upstream.api_key)",
        "pass",
        "promises/test_keys.py::test_what_an_upstream_repeats_of_its_key_is_masked",
    ),
    "counts that cannot be true": Guard(
        "meter:settled",
        "said = _believed(said)",
        "pass",
        "promises/test_plugins.py::test_what_a_plugin_counts_credits_nobody[-5]",
    ),
    "ends that are none": Guard(
        "stream:Delivery.finish",
        'raise UpstreamProtocol("the upstream\'s stream ended before its answer was complete")',
        "pass",
        "promises/test_plugins.py::test_a_decoder_that_never_ends_is_a_cut",
    ),
    "streams that are too long to be held": Guard(
        "stream:Delivery.take",
        "self._grow(len(piece))",
        "pass",
        "promises/test_lines.py::test_a_stream_that_has_to_be_held_ends_when_it_is_too_long[relay]",
    ),
    "invalid arguments for strict keys": Guard(
        "attempt:Attempt._check",
        "raise bad_arguments(fault)",
        "pass",
        "flow/test_chat.py::test_strict_makes_bad_tool_arguments_an_error",
    ),
    "retries stay within their budget": Guard(
        "dispatch:Course._again",
        "not dispatch.budget.take(dispatch.in_flight())",
        "False",
        "core/test_dispatch.py::test_of_a_hundred_calls_that_fail_at_once_a_fifth_is_asked_again",
    ),
    "what may have run": Guard(
        "dispatch:Course.failed",
        "not (error.retryable or resent)",
        "False",
        "core/test_dispatch.py::test_what_is_wrong_with_the_request_or_may_have_run_is_never_asked_again_of_anybody",
    ),
    "what cools down": Guard(
        "dispatch:Course.next",
        "elif health.wait(target, now):",
        "elif False:",
        "core/test_dispatch.py::test_if_all_cool_down_the_answer_comes_at_once_with_the_soonest_time",
    ),
    "no sniffing": Guard(
        "middleware:finish_headers",
        "headers.update(STANDING)",
        "pass",
        "promises/test_origins.py::test_no_answer_is_a_page",
    ),
}


def taken_out(guard: Guard) -> None:
    """Change the running function. Fails if the words are not there just once: then the guard has moved."""
    path, _, name = guard.where.partition(":")
    module = importlib.import_module(path if path.startswith("relay_") else f"relay.{path}")
    function: object = module
    for part in name.split("."):
        function = getattr(function, part)
    assert isinstance(function, FunctionType)
    function = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(guard.words) == 1, f"{guard.words!r} is not in {guard.where} just once"
    found: dict[str, FunctionType] = {}
    exec(compile(source.replace(guard.words, guard.instead), guard.where, "exec"), module.__dict__, found)
    function.__code__ = inspect.unwrap(found[function.__name__]).__code__


def begun(guard: Guard | None, tests: Sequence[str], log: Path) -> int:
    """A copy of this process that runs some tests, without the guard. Its number."""
    child = os.fork()
    if child:
        return child
    status = -1
    try:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        if guard is not None:
            taken_out(guard)
        # What was there before is not looked through again and again.
        gc.freeze()
        # Folders of its own: those that all runs share are cleared away by whichever run is over first.
        options = ["-q", "-x", "--tb=line", "--rootdir", str(ROOT), f"--basetemp={log}.files"]
        # What waits for ever without its guard is ended from beside: an exception out of a signal may come between two
        # lines of the changed function, and pytest itself fails over one that belongs to no line.
        options += ["--timeout", "12", "--timeout-method", "thread"]
        for plugin in ("cacheprovider", "unraisableexception", "threadexception", "hypothesispytest", "anyio"):
            options += ["-p", f"no:{plugin}"]
        status = int(pytest.main([*options, *(f"{ROOT}/tests/{test}" for test in tests)]))
    except Exception:
        # Nobody else will tell.
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str]]:
    """How the tests ended in each copy, and what they said."""
    folder = tmp_path_factory.mktemp("mutations")
    # Some of each kind, to see that a copy does what it should.
    with_all = list(dict.fromkeys(guard.test for guard in GUARDS.values()))[::6]
    for guard in GUARDS.values():
        # Once here, instead of once in each copy.
        importlib.import_module(f"tests.{guard.test.partition('.py')[0].replace('/', '.')}")
    waiting: list[tuple[str, Guard | None, Sequence[str]]] = [("", None, with_all)]
    waiting += [(name, guard, [guard.test]) for name, guard in GUARDS.items()]
    running: dict[int, str] = {}
    found: dict[str, tuple[int, str]] = {}
    deadline = time.monotonic() + SECONDS
    try:
        while waiting or running:
            while waiting and len(running) < TOGETHER:
                name, guard, tests = waiting.pop(0)
                running[begun(guard, tests, folder / (name or "all"))] = name
            child, status = os.waitpid(0, os.WNOHANG)
            if child in running:
                name = running.pop(child)
                found[name] = os.waitstatus_to_exitcode(status), (folder / (name or "all")).read_text(errors="replace")
            elif time.monotonic() > deadline:
                raise TimeoutError(f"still running: {sorted(running.values())}")
            else:
                time.sleep(0.01)
    finally:
        for child in running:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return found


@pytest.mark.promise("L-15")
def test_with_all_guards_in_their_places_these_tests_are_fine(verdicts: Mapping[str, tuple[int, str]]) -> None:
    assert verdicts[""][0] == 0, verdicts[""][1]


@pytest.mark.promise("L-15")
@pytest.mark.parametrize("name", GUARDS)
def test_without_one_of_them_a_test_fails(verdicts: Mapping[str, tuple[int, str]], name: str) -> None:
    status, said = verdicts[name]
    assert status == int(pytest.ExitCode.TESTS_FAILED), said
